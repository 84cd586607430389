"""V-JEPA 2: the official tokens from official and transformers' files, two temporal modes, refusal of everything else."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import repeat
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from in_process import build_encoder, encoder_config
from patches import assert_a_patch_changes_its_own_token
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import VJEPA2Config, VJEPA2Model

from wmbench.encoders.vjepa2 import VJEPA2, read_published
from wmbench.shapes import Obs

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 4}
NAMES = ("vjepa2", "vjepa2_h", "vjepa2_g")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recorded(golden: Path) -> dict[str, Any]:
    return torch.load(golden / "vjepa2_encoder_tiny.pt", weights_only=True)


def build(file: Path | None = None, **settings: Any) -> VJEPA2:
    """The encoder of the golden file's sizes from a file, or untrained."""
    return build_encoder("vjepa2", file, **{"architecture": TINY, "image_size": 64} | settings)


@pytest.fixture
def official(recorded, tmp_path: Path) -> Path:
    """A training checkpoint as it is published, its moving average another network."""
    checkpoint = {
        "encoder": recorded["encoder"] | {"module.backbone.pos_embed": torch.zeros(1, 16, 48)},
        "target_encoder": {name: tensor + 0.1 for name, tensor in recorded["encoder"].items()},
        "predictor": {"module.backbone.mask_tokens.0": torch.zeros(1, 1, 7)},
        "opt": {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "scaler": None,
        "epoch": 3,
        "lr": 0.1,
    }
    torch.save(checkpoint, tmp_path / "vitl.pt")
    return tmp_path / "vitl.pt"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers wrote for 64-pixel frames, predictor and all."""
    folder = tmp_path_factory.mktemp("published")
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    predictor = {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
    torch.manual_seed(0)
    VJEPA2Model(VJEPA2Config(crop_size=64, **sizes, **predictor, initializer_range=0.3)).save_pretrained(folder)
    return folder


def random_obs(frames: int, side: int = 64) -> Obs:
    generator = torch.Generator().manual_seed(1)
    visual = torch.randint(0, 256, (2, frames, side, side, 3), dtype=torch.uint8, generator=generator)
    return Obs(visual=visual, proprio=torch.zeros(2, frames, 4))


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= 1e-5 * expected.norm())


@pytest.mark.parametrize("name", ["pair", "still", "clip"])
def test_an_official_file_gives_the_official_tokens(recorded, official, name):
    assert close(build(official).tokens(recorded[name]), recorded[f"{name}_tokens"])


def test_the_entry_of_an_official_file_is_chosen_and_named(recorded, official):
    online, average = build(official), build(official, entry="target_encoder")
    assert online.source == f"{official}, encoder"
    assert average.source == f"{official}, target_encoder"
    for name, tensor in online.trunk.state_dict().items():
        torch.testing.assert_close(average.trunk.state_dict()[name], tensor + 0.1)


@pytest.mark.parametrize("size", [64, 48])
def test_transformers_files_give_the_features_of_transformers_at_the_size_of_the_frames(published, size):
    clip = torch.randn(2, 3, 4, size, size, generator=torch.Generator().manual_seed(2))
    theirs = VJEPA2Model.from_pretrained(published, crop_size=size)
    expected = theirs.get_vision_features(clip.transpose(1, 2))
    for path in (published, published / "model.safetensors"):
        assert close(build(path, image_size=size).tokens(clip), expected)
    as_trained = VJEPA2Model.from_pretrained(published).get_vision_features(clip.transpose(1, 2))
    assert close(as_trained, expected) == (size == 64)  # why the size is part of the network


def test_a_folder_in_several_files_is_read_whole(published, tmp_path):
    model = VJEPA2Model.from_pretrained(published)
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    whole, shards = build(published).trunk.state_dict(), build(tmp_path).trunk.state_dict()
    assert all(torch.equal(shards[name], tensor) for name, tensor in whole.items())
    next(tmp_path.glob("*2-of*")).unlink()
    with pytest.raises(InstantiationException, match=r"2-of-.*\.safetensors is no file"):
        build(tmp_path)


def test_transformers_still_writes_the_names_of_the_published_files(published):
    with safe_open(published / "model.safetensors", "pt") as file:
        names = {name for name in file.keys() if not name.startswith("predictor.")}  # noqa: SIM118 - no mapping
    block = ("norm1", "norm2", "attention.query", "attention.key", "attention.value", "attention.proj", "mlp.fc1", "mlp.fc2")
    modules = [f"layer.{index}.{module}" for index in range(3) for module in block]
    modules += ["embeddings.patch_embeddings.proj", "layernorm"]
    assert names == {f"encoder.{module}.{kind}" for module in modules for kind in ("weight", "bias")}


def one_block(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not re.search(r"(blocks|layer)\.[12]|predictor", name)}


@pytest.mark.parametrize("kind", ["official.pt", "published.safetensors"])
def test_a_missing_extra_or_misshapen_tensor_is_refused_by_name(recorded, published, tmp_path, kind):
    encoder = build(architecture=TINY | {"depth": 1})
    is_official = kind == "official.pt"
    state = one_block(recorded["encoder"] if is_official else load_file(published / "model.safetensors"))

    def load(changed: dict[str, Tensor]) -> None:
        if is_official:
            torch.save({"encoder": changed}, tmp_path / kind)
        else:
            save_file(changed, tmp_path / kind)
        encoder.load_trunk(tmp_path / kind, "encoder")

    def refused(changed: dict[str, Tensor], message: str) -> None:
        with pytest.raises(ValueError, match=rf"{kind} is not this V-JEPA 2: {message}; give weights="):
            load(changed)

    for name, tensor in state.items():
        refused({n: t for n, t in state.items() if n != name}, f"missing {name}")
        wrong = torch.cat([tensor, tensor])
        refused(state | {name: wrong}, rf"{name} is \({wrong.shape[0]},.*\) instead of \({tensor.shape[0]},.*\)")
    extra = "module.backbone.cls_token" if is_official else "encoder.cls_token"
    refused(state | {extra: torch.zeros(2, 3)}, f"unknown {extra}")
    load(state)


def test_weights_of_another_network_are_refused(official, tmp_path):
    with pytest.raises(
        InstantiationException, match=r"patch_embed.*is \(48, 3, 2, 16, 16\) instead of \(80, 3, 2, 16, 16\)"
    ):
        build(official, architecture=TINY | {"embed_dim": 80})
    torch.save({"predictor": {"mask_tokens": torch.zeros(2)}}, tmp_path / "predictor.pt")
    with pytest.raises(InstantiationException, match=r"predictor\.pt is no state dict"):
        build(tmp_path / "predictor.pt")


@torch.no_grad()
def test_a_still_frame_is_the_frame_twice():
    encoder, obs = build(seed=1), random_obs(3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    frames = repeat((obs["visual"] / 255 - mean) / std, "b t h w c -> (b t) c two h w", two=2)
    torch.testing.assert_close(encoder(obs).flatten(0, 1), encoder.tokens(frames))


@torch.no_grad()
@pytest.mark.parametrize(("temporal", "reach"), [("still", 1), ("pair", 2)])
def test_a_frame_reaches_its_own_tokens_and_in_pairs_those_of_the_next(temporal, reach):
    encoder, obs = build(temporal=temporal), random_obs(4)
    tokens = encoder(obs)
    for frame in range(4):
        visual = obs["visual"].clone()
        visual[1, frame] = 255 - visual[1, frame]
        moved = (encoder(Obs(visual=visual, proprio=obs["proprio"])) != tokens).flatten(2).any(-1)
        assert moved.nonzero().tolist() == [[1, later] for later in range(frame, min(frame + reach, 4))]


@torch.no_grad()
def test_a_pair_is_the_previous_frame_then_this_one_and_the_first_is_still(recorded, official):
    pair, still = build(official, temporal="pair"), build(official)
    obs = random_obs(3)
    clips = still.preprocess(obs["visual"]).unflatten(0, (2, 3))[:, :, :, :1]
    expected = still.tokens(torch.cat([clips[:, 0], clips[:, 1]], dim=2))
    torch.testing.assert_close(pair(obs)[:, 1], expected)
    torch.testing.assert_close(pair(obs)[:, 0], still(obs)[:, 0])
    assert not torch.allclose(pair(obs)[:, 1], still(obs)[:, 1], rtol=0.01)


def test_a_changed_patch_changes_its_own_token_where_tokens_do_not_mix():
    clip = torch.randn(1, 3, 2, 48, 48, generator=torch.Generator().manual_seed(0))
    assert_a_patch_changes_its_own_token(build(image_size=48), clip, mixing="attention.proj")


def test_attention_is_fused_in_every_block(monkeypatch):
    fused, calls = torch.nn.functional.scaled_dot_product_attention, []
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **kwargs: calls.append(1) or fused(*args, **kwargs),
    )
    build().tokens(torch.zeros(1, 3, 2, 64, 64))
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("name", "parameters"), [("vjepa2", 303_885_312), ("vjepa2_h", 631_648_000), ("vjepa2_g", 1_012_173_952)]
)
def test_a_named_model_has_the_parameters_of_the_release(name, parameters):
    with torch.device("meta"):
        encoder = instantiate(encoder_config(name), pretrained=False)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters


def test_fourteen_or_sixteen_patches_a_side_come_from_the_size_of_the_frames():
    assert [build(image_size=size).grid for size in (224, 256)] == [(14, 14), (16, 16)]
    assert encoder_config("vjepa2").image_size == 256


@pytest.mark.parametrize("name", NAMES)
def test_fetch_gets_what_the_encoder_asks_for_from_a_pinned_revision(name):
    release = encoder_config(name).release
    assert encoder_config(release.name).release == release
    assert re.search(r"/resolve/[0-9a-f]{40}/", release.url)
    assert release.sha256 is None or len(release.sha256) == 64


def test_without_a_network_the_error_comes_before_the_network_is_built(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(VJEPA2, "build_trunk", lambda *_: pytest.fail("built first"))
    with pytest.raises(InstantiationException, match=r"vjepa2-vith-fpc64-256\.safetensors.*fetch\.py encoder=vjepa2_h"):
        instantiate(encoder_config("vjepa2_h"), release={"url": (tmp_path / "absent.safetensors").as_uri()})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 196}, r"image_size \(196\) must be a multiple of the patch \(16\), such as 192"),
        ({"temporal": "clip"}, r"temporal \('clip'\) must be one of still, pair"),
        ({"entry": "ema_encoder"}, r"entry \('ema_encoder'\) must be one of encoder, target_encoder"),
        ({"entry": "target_encoder"}, r"entry \('target_encoder'\) chooses a network in an official \.pt"),
        (
            {"entry": "target_encoder", "pretrained": True, "weights": "a.safetensors"},
            r"chooses a network in an official \.pt",
        ),
        ({"architecture": TINY | {"crop_size": 256}}, r"unexpected keyword argument 'crop_size'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(settings, message):
    with pytest.raises(InstantiationException, match=message):
        build(**settings)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 2, 48, 48), r"48 x 48 pixels does not fit image_size \(64\)"),
        ((1, 3, 2, 32, 128), r"32 x 128 pixels does not fit image_size \(64\)"),  # as many patches
        ((1, 3, 3, 64, 64), r"frames of a clip \(3\) must be a multiple of the tubelet \(2\)"),
    ],
)
def test_clips_that_do_not_fit_the_network_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        build().tokens(torch.zeros(shape))


def test_a_recording_is_verified_and_one_that_differs_fails(recorded, tmp_path, monkeypatch, capsys):
    torch.save(recorded | {"still_tokens": recorded["still_tokens"] * 1.001}, tmp_path / "recorded.pt")
    script = str(ROOT / "scripts" / "verify_encoder.py")
    monkeypatch.setattr("sys.argv", [script, "encoder=vjepa2", f"file={tmp_path / 'recorded.pt'}"])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(script, run_name="__main__")
    assert exit.value.code == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["pair_tokens", "still_tokens", "clip_tokens"]
    assert [line[0] for line in lines if line[-1] == "fails"] == ["still_tokens"]


def test_a_damaged_index_is_refused_by_name(tmp_path: Path):
    for text in ("{", "[]", '{"weight_map": ["a"]}', "[" * 10_000):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ValueError, match=r"index\.json is damaged or no index of tensors"):
            read_published(tmp_path)


@pytest.mark.parametrize("file", ["../secret.safetensors", "/secret.safetensors", "model.pt"])
def test_an_index_that_names_a_file_elsewhere_is_refused(tmp_path: Path, file: str):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(ValueError, match=rf"index\.json names '{file}', which is no \.safetensors file next to it"):
        read_published(tmp_path)
