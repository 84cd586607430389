"""The encoder from scratch: its file is read strictly, for the settings it was trained with."""

from pathlib import Path

import pytest
import torch
from in_process import build_encoder, encoder_config
from safetensors.torch import save_file

from wmbench.encoders.scratch import Scratch
from wmbench.encoders.trained import save_trained

SMALL = {"image_size": 32, "embed_dim": 5}


def new(name: str = "scratch", file: Path | None = None, **settings) -> Scratch:
    return build_encoder(name, file, **SMALL | settings)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    new(seed=3).save_head(tmp_path / "weights.safetensors", {"objective": "vae", "steps": 7, "data_hash": "abc"})
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("name", ["scratch", "scratch_vit"])
def test_it_has_between_one_and_five_million_parameters_and_4_x_4_tokens_at_its_own_size(name: str):
    encoder = build_encoder(name)
    assert 1e6 < sum(parameter.numel() for parameter in encoder.parameters()) < 5e6
    assert (encoder.image_size, encoder.grid, encoder_config(name).embed_dim) == (64, (4, 4), encoder.embed_dim)


def test_the_mean_is_that_of_the_map(file: Path):
    pixels = torch.rand(2, 3, 32, 32)
    map_, mean = new(), new(output="mean")
    torch.testing.assert_close(mean.tokens(pixels), map_.tokens(pixels).mean(1, keepdim=True))


def test_the_file_brings_weights_and_says_where_they_come_from(file: Path):
    loaded, drawn = new(file=file), new(seed=3)
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.tokens(pixels), drawn.tokens(pixels))
    assert loaded.source.startswith(f"vae, 7 steps on data abc ({file}, SHA-256 ")
    assert (loaded.note, drawn.note, drawn.source) == ("pretrained on PointMaze: vae", "untrained", "untrained, seed 3")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embed_dim": 6}, r"is not of this encoder: project\.1\.weight is \(5, 256\) instead of \(6, 256\)"),
        ({"image_size": 64}, r"was trained with another image_size \(32, here 64\)"),
        ({"output": "mean"}, r"was trained with another output \(patches, here mean\)"),
    ],
)
def test_weights_for_other_settings_are_refused(settings: dict, message: str, file: Path):
    with pytest.raises(Exception, match=message):
        new(file=file, **settings)


def test_weights_of_another_trunk_or_of_nobody_are_refused(file: Path, tmp_path: Path):
    with pytest.raises(Exception, match=r"is not of this encoder: .*missing trunk\.network"):
        new("scratch_vit", file=file)
    save_file(new().state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(Exception, match=r"another trunk \(None, here ConvTrunk"):
        new(file=tmp_path / "plain.safetensors")
    with pytest.raises(Exception, match=r"x\.pth is no file\. Train it on your frames:.*pretrain\.py encoder=scratch"):
        new(file=Path("x.pth"))
    with pytest.raises(Exception, match=r"a new network is trained leaves weights=x\.pth unread"):
        new(file=Path("x.pth"), for_training=True)


@pytest.mark.parametrize("facts", [None, "[1]", "{", '{"provenance": 3}'])
def test_a_damaged_file_is_refused_by_name(facts: str | None, tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    save_file(new().state_dict(), path, {"wmbench": facts or ""})
    if facts is None:
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(Exception, match=r"weights\.safetensors is damaged"):
        new(file=path)


def test_a_flipped_bit_of_a_trained_weight_is_noticed(file: Path, tmp_path: Path):
    contents = bytearray(file.read_bytes())
    contents[-20] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(contents)
    with pytest.raises(
        Exception, match=r"flipped\.safetensors is damaged \(it has another checksum .* give encoder.weights="
    ):
        new(file=tmp_path / "flipped.safetensors")


def test_codes_come_with_the_file_and_are_the_tokens(tmp_path: Path):
    encoder = new()
    encoder.with_codes(4)
    encoder.save_head(tmp_path / "codes.safetensors", {})
    loaded = new(file=tmp_path / "codes.safetensors")
    assert loaded.codebook is not None
    tokens = loaded.tokens(torch.rand(6, 3, 32, 32))
    is_code = (tokens[:, :, None] == loaded.codebook.embed.T).all(-1)
    assert (is_code.sum(-1) == 1).all()


def test_a_codebook_of_another_width_is_refused(tmp_path: Path):
    encoder = new(embed_dim=6)
    encoder.with_codes(4)
    save_trained(tmp_path / "codes.safetensors", encoder, encoder.conditions(), {})
    with pytest.raises(Exception, match=r"codebook\.embed is \(6, 4\) instead of \(5, 4\)"):
        new(file=tmp_path / "codes.safetensors")
