"""Vision Transformers of timm by name: recorded outputs, official files, sizes, pixels; refusal of everything else."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from in_process import build_encoder, encoder_config
from safetensors.torch import save_file
from torch import Tensor

from wmbench.encoders.timm_vit import TimmViT, build_trunk, load_trunk

TINY = {"embed_dim": 48, "depth": 2, "num_heads": 3}
NAMES = ("dino_patches", "mae", "siglip2", "ijepa")
EVA = "eva02_small_patch14_224.mim_in22k"
ROTARY = "vit_small_patch16_dinov3.lvd1689m"
RADIO = "vit_base_patch16_radio_v3"
since_timm_1_0_31 = pytest.mark.skipif(not timm.is_model(RADIO), reason="this release of timm does not have the model yet")


def build(name: str, file: Path | None = None, **settings: Any) -> TimmViT:
    """The encoder of a YAML file from a file of weights, or untrained, at tiny size."""
    return build_encoder(name, file, **{"architecture": TINY} | settings)


def random_state(model: str, seed: int = 0) -> dict[str, Tensor]:
    """Weights for the tiny network in which no tensor is constant, as initial ones are."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = build_trunk(model, TINY).state_dict()
    return {name: 0.2 * torch.randn(tensor.shape, generator=generator) for name, tensor in shapes.items()}


def save_as_released(name: str, state: dict[str, Tensor], folder: Path) -> Path:
    """A file as the encoder's authors publish it."""
    decoy = {"module.pos_embed": torch.zeros(3)}
    nested = {
        "mae": {"model": state},
        "ijepa": {"encoder": decoy, "target_encoder": {f"module.{n}": t for n, t in state.items()}, "opt": {}, "epoch": 300},
    }
    file = folder / encoder_config(name).release.file
    save = save_file if file.suffix == ".safetensors" else torch.save
    save(nested.get(name, state), str(file))
    return file


@pytest.mark.parametrize("size", [70, 98])
def test_a_network_given_by_name_gives_the_recorded_outputs(golden, tmp_path, size):
    """DINOv2's recording; without its mask token, which serves training alone, the official file is in timm's format."""
    record = torch.load(golden / "dinov2_encoder_tiny.pt", weights_only=True)["plain"]
    file = tmp_path / "model.pth"
    torch.save({name: tensor for name, tensor in record["state_dict"].items() if name != "mask_token"}, file)
    settings = {"model": "vit_small_patch14_dinov2.lvd142m", "architecture": TINY | {"depth": 3}, "positions": "hub"}
    for output, key in (("patches", "patch_tokens"), ("cls", "cls")):
        expected = record[f"{key}_{size}"]
        encoder = build("timm", file, image_size=size, output=output, **settings)
        found = encoder.tokens(record[f"image_{size}"]).reshape(expected.shape)
        assert (found - expected).norm() <= 1e-5 * expected.norm()
    other = build("timm", file, image_size=size, **settings | {"positions": "timm"})
    expected = record[f"patch_tokens_{size}"]
    assert (other.tokens(record[f"image_{size}"]) - expected).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_as_its_authors_publish_it_is_loaded_whole(tmp_path, name):
    state = random_state(encoder_config(name).model)
    encoder = build(name, save_as_released(name, state, tmp_path))
    loaded = encoder.trunk.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items())
    assert encoder.source.endswith(encoder_config(name).release.file)
    assert encoder.licence == encoder_config(name).release.licence
    side = encoder.image_size // encoder.grid[0]
    pixels = torch.randn(1, 3, encoder.image_size, encoder.image_size, generator=torch.Generator().manual_seed(0))
    tokens = encoder.tokens(pixels)
    assert torch.equal(tokens, encoder.tokens(pixels)), "something is masked at random"
    pixels[:, :, -side:, -side:] += 1
    assert (encoder.tokens(pixels) != tokens).any(-1).all(), "a token does not see the last patch"


def test_a_classifier_is_left_out_and_anything_else_refused_by_name(tmp_path):
    model = encoder_config("timm").model
    state = random_state(model)
    with torch.device("meta"):
        trunk = build_trunk(model, TINY)

    def load(changed: dict[str, Tensor]) -> None:
        save_file(changed, tmp_path / "model.safetensors")
        load_trunk(trunk, tmp_path / "model.safetensors", None, model)

    for name, tensor in state.items():
        with pytest.raises(ValueError, match=rf"model\.safetensors is not {model}: missing {name}; give weights="):
            load({n: t for n, t in state.items() if n != name})
        with pytest.raises(ValueError, match=rf"{name} is \({2 * len(tensor)}[,)].* instead of \({len(tensor)}[,)]"):
            load(state | {name: torch.cat([tensor, tensor])})
    with pytest.raises(ValueError, match=r"unknown neck\.weight"):
        load(state | {"neck.weight": torch.zeros(5, 48)})
    load(state | {"head.weight": torch.zeros(5, 48), "head.bias": torch.zeros(5)})


def test_weights_of_another_network_are_refused(tmp_path):
    mae = save_as_released("mae", random_state(encoder_config("mae").model), tmp_path)
    with pytest.raises(InstantiationException, match=r"pos_embed is \(1, 197, 48\) instead of \(1, 256, 48\)"):
        build("siglip2", mae, entry="model")
    with pytest.raises(InstantiationException, match=r"cls_token is \(1, 1, 48\) instead of \(1, 1, 768\)"):
        build("mae", mae, architecture={})


@pytest.mark.parametrize(
    ("settings", "tokens", "prefix", "size"),
    [
        ({}, 196, 1, 224),
        ({"model": "vit_base_patch16_siglip_224.v2_webli"}, 196, 0, 224),
        ({"model": "vit_small_patch14_reg4_dinov2.lvd142m"}, 37 * 37, 5, 518),
        pytest.param({"model": f"{RADIO}.c_radio", "image_size": 32}, 4, 8, 32, marks=since_timm_1_0_31),
        ({"model": ROTARY, "image_size": 48}, 9, 5, 48),
        ({"model": EVA, "image_size": 42}, 9, 1, 42),
    ],
)
def test_size_and_prefix_are_the_models_own(settings, tokens, prefix, size):
    encoder = build("timm", **settings)
    assert (encoder.num_tokens, encoder.prefix_tokens, encoder.image_size) == (tokens, prefix, size)
    assert encoder.embed_dim == 48
    assert encoder.tokens(torch.zeros(1, 3, size, size)).shape == (1, tokens, 48)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("dino_patches", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("mae", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("ijepa", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("siglip2", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_pixels_are_scaled_as_in_the_models_training_or_as_in_dino_wm(name, mean, std):
    for pixels, expected_mean, expected_std in (("native", mean, std), ("dino_wm", (0.5,) * 3, (0.5,) * 3)):
        encoder = build(name, pixels=pixels)
        visual = torch.full((1, 1, encoder.image_size, encoder.image_size, 3), 51, dtype=torch.uint8)  # a fifth of 255
        expected = (0.2 - torch.tensor(expected_mean)) / torch.tensor(expected_std)
        torch.testing.assert_close(encoder.preprocess(visual)[0, :, 5, 7], expected)


def test_a_rotary_network_from_a_file_has_its_frequencies(tmp_path):
    """The meta device, on which weights are awaited, computes none."""
    untrained = build("timm", model=ROTARY, image_size=48)
    save_file(untrained.trunk.state_dict(), tmp_path / "model.safetensors")
    loaded = build("timm", tmp_path / "model.safetensors", model=ROTARY, image_size=48, seed=5)
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.tokens(pixels), untrained.tokens(pixels))


def test_no_patch_token_is_the_output_of_a_prefix_token(monkeypatch):
    encoder = build("dino_patches", image_size=32)
    features = torch.arange(5.0)[None, :, None].expand(2, 5, 48)
    monkeypatch.setattr(encoder.trunk, "forward_features", lambda pixels: features)
    assert torch.equal(encoder.tokens(torch.zeros(2, 3, 32, 32)), features[:, 1:])
    encoder.output = "cls"
    assert torch.equal(encoder.tokens(torch.zeros(2, 3, 32, 32)), features[:, :1])


@pytest.mark.parametrize(
    ("name", "parameters", "tokens", "width"),
    [
        ("dino_patches", 21_665_664, 196, 384),
        ("mae", 85_798_656, 196, 768),
        ("siglip2", 92_930_304, 256, 768),
        ("ijepa", 630_762_240, 256, 1280),
    ],
)
def test_a_named_model_has_the_parameters_of_the_paper(name, parameters, tokens, width):
    with torch.device("meta"):
        trunk = build_trunk(encoder_config(name).model, {})
    assert sum(parameter.numel() for parameter in trunk.parameters()) == parameters
    assert (trunk.patch_embed.num_patches, trunk.embed_dim) == (tokens, width)
    assert trunk.patch_embed.img_size == (encoder_config(name).image_size, encoder_config(name).image_size)


@pytest.mark.parametrize("encoder", [*NAMES, "dino_cls", f"timm encoder.model={ROTARY}"])
def test_fetch_gets_what_the_encoder_asks_for(encoder):
    release = encoder_config(*encoder.split()).release
    assert encoder_config(*release.name.split()).release == release
    assert release.file not in ("", "model.safetensors")
    assert release.file == release.url.rpartition("/")[2] or encoder_config(*encoder.split()).model in release.url


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 196}, r"image_size \(196\) must be a multiple of the patch \(16\), such as 192"),
        ({"output": "pooled"}, r"output \('pooled'\) must be one of patches, cls"),
        ({"positions": "bicubic"}, r"positions \('bicubic'\) must be one of timm, hub"),
        ({"model": EVA, "positions": "hub"}, r"eva02.* has more than a position table to resample; take positions=timm"),
        ({"model": "vit_smal_patch16_224"}, r"'vit_smal_patch16_224'\) is none of timm.*similar: vit_small_patch16_224"),
        ({"model": "vit_small_patch16_224.dinno"}, r"is none of timm.*vit_small_patch16_224\.dino"),
        (
            {"model": "timm/vit_tiny_patch16_224.augreg_in21k"},
            r"is an address.*take encoder.model=vit_tiny_patch16_224\.aug",
        ),
        (
            {"model": "hf-hub:timm/vit_small_patch16_224.dino"},
            r"is an address.*take encoder.model=vit_small_patch16_224\.dino",
        ),
        ({"model": "hf_hub:me/vit_smal_patch16_224"}, r"is an address.*; similar: vit_small_patch16_224"),
        ({"architecture": {"pretrained": True}}, r"architecture\.pretrained would have timm load weights"),
        ({"architecture": {"checkpoint_path": "a.pth"}}, r"architecture\.checkpoint_path would have timm load weights"),
        ({"model": "resnet18.tv_in1k", "architecture": {}}, r"'resnet18\.tv_in1k'\) has no row of tokens at one scale"),
        ({"model": "vit_base_patch16_siglip_256.v2_webli", "output": "cls"}, r"siglip_256\.v2_webli has no CLS token"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(settings, message):
    with pytest.raises(InstantiationException, match=message):
        instantiate(encoder_config("timm"), **{"pretrained": False, "architecture": TINY} | settings)


@pytest.mark.parametrize("name", ["dinov2", "dinov3", "dinov3_convnext", "timm", "mae"])
@pytest.mark.parametrize("source", ["hf-hub:timm/", "timm/", "local-dir:/some/where/"])
def test_an_address_in_place_of_a_name_is_refused_and_asks_no_network(name: str, source: str, monkeypatch):
    def asked(*arguments, **options):
        raise AssertionError("asked the network")

    monkeypatch.setattr("socket.create_connection", asked)
    settings = {"pretrained": False, "model": f"{source}{encoder_config(name).model}"}
    with pytest.raises(InstantiationException, match=r"is an address, .*; take encoder\.model="):
        instantiate(encoder_config(name), **settings)


def test_a_name_whose_weights_have_several_tags_is_refused_with_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InstantiationException, match=r"has weights under \d+ names.*vit_small_patch16_224\.dino"):
        instantiate(encoder_config("timm"), model="vit_small_patch16_224")


def test_without_weights_and_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    release = {**encoder_config("mae").release, "url": (tmp_path / "absent.pth").as_uri()}
    with pytest.raises(
        InstantiationException, match=r"mae_pretrain_vit_base\.pth are not in .*scripts/fetch\.py encoder=mae"
    ):
        build("mae", pretrained=True, release=release)
