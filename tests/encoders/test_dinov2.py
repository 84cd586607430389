"""DINOv2: the official outputs from official files, and refusal of everything else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from in_process import build_encoder, encoder_config
from patches import assert_a_patch_changes_its_own_token
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms.functional import resize

from wmbench.commands import CONF
from wmbench.encoders.dinov2 import DINOv2, build_trunk, hub_positions, load_trunk

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3}
CONFIG_OF = {"plain": "dinov2", "registers": "dinov2_reg"}
NAMES = sorted(path.stem for path in Path(CONF, "encoder").glob("dinov2*.yaml"))


@pytest.fixture(scope="module")
def recorded(golden: Path) -> dict[str, Any]:
    return torch.load(golden / "dinov2_encoder_tiny.pt", weights_only=True)


def build(variant: str, file: Path | None = None, **settings: Any) -> DINOv2:
    """The encoder of a golden variant from a file, or untrained, at tiny size."""
    return build_encoder(CONFIG_OF[variant], file, **{"architecture": TINY, "image_size": 70} | settings)


def save_official(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save(state, folder / "official.pth")
    return folder / "official.pth"


@pytest.mark.parametrize("variant", CONFIG_OF)
@pytest.mark.parametrize("size", [70, 98, 196])
@pytest.mark.parametrize(("output", "key"), [("patches", "patch_tokens"), ("cls", "cls")])
def test_an_official_file_gives_the_official_outputs(recorded, tmp_path, variant, size, output, key):
    record = recorded[variant]
    encoder = build(variant, save_official(record["state_dict"], tmp_path), image_size=size, output=output)
    expected = record[f"{key}_{size}"]
    found = encoder.tokens(record[f"image_{size}"]).reshape(expected.shape)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("variant", CONFIG_OF)
def test_a_file_in_timms_format_gives_the_same_outputs(recorded, tmp_path, variant):
    official = save_official(recorded[variant]["state_dict"], tmp_path)
    trunk = build_trunk(encoder_config(CONFIG_OF[variant]).model, TINY)
    load_trunk(trunk, official, variant)
    save_file({name: tensor.contiguous() for name, tensor in trunk.state_dict().items()}, tmp_path / "model.safetensors")
    image = recorded[variant]["image_70"]
    ours, timms = build(variant, official), build(variant, tmp_path / "model.safetensors")
    assert torch.equal(ours.tokens(image), timms.tokens(image))


@pytest.mark.parametrize("variant", CONFIG_OF)
def test_a_missing_extra_or_misshapen_tensor_is_refused_by_name(recorded, tmp_path, variant):
    state = {n: t for n, t in recorded[variant]["state_dict"].items() if not n.startswith(("blocks.1", "blocks.2"))}
    with torch.device("meta"):
        trunk = build_trunk(encoder_config(CONFIG_OF[variant]).model, TINY | {"depth": 1})

    def refused(changed: dict[str, Tensor], message: str) -> None:
        with pytest.raises(ValueError, match=rf"official.pth is not {variant}: .*{message}.*weights="):
            load_trunk(trunk, save_official(changed, tmp_path), variant)

    for name in state.keys() - {"mask_token"}:  # without the mask token a plain file is one of timm's
        refused({n: t for n, t in state.items() if n != name}, f"missing {name}")
    for name, tensor in state.items():
        wrong = torch.cat([tensor, tensor])
        refused(state | {name: wrong}, rf"{name} is \({wrong.shape[0]},.* instead of \({tensor.shape[0]},")
    refused(state | {"head.weight": torch.zeros(2, 3)}, r"unknown head\.weight")


@pytest.mark.parametrize(
    ("variant", "file", "settings", "message"),
    [
        ("registers", "plain", {}, "missing register_tokens"),
        ("plain", "registers", {}, "unknown register_tokens"),
        ("plain", "plain", {"architecture": {}}, r"cls_token is \(1, 1, 48\) instead of \(1, 1, 384\)"),
    ],
)
def test_weights_of_another_network_are_refused(recorded, tmp_path, variant, file, settings, message):
    path = save_official(recorded[file]["state_dict"], tmp_path)
    with pytest.raises(InstantiationException, match=message):
        build(variant, path, **settings)


def test_positions_without_registers_are_sampled_at_side_plus_a_tenth():
    """Against the formula of cubic convolution (Keys 1981) with PyTorch's a = -0.75."""

    def cubic(x: Tensor) -> Tensor:
        x = x.abs()
        near = 1.25 * x**3 - 2.25 * x**2 + 1
        return torch.where(x <= 1, near, torch.where(x < 2, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4), 0))

    old = 7
    table = torch.randn(1, old**2, 3, generator=torch.Generator().manual_seed(0))
    for side in (2, 5, 11):
        position = (torch.arange(side) + 0.5) * old / (side + 0.1) - 0.5
        resample = torch.zeros(side, old)
        for neighbour in (position.floor() + offset for offset in (-1, 0, 1, 2)):
            column = neighbour.clamp(0, old - 1).long()  # beyond the border the edge is repeated
            resample[torch.arange(side), column] += cubic(position - neighbour)
        expected = torch.einsum("ik, jl, kld -> ijd", resample, resample, table.reshape(old, old, 3))
        torch.testing.assert_close(hub_positions(table, side, antialias=False).reshape(side, side, 3), expected)
    assert hub_positions(table, old, antialias=False) is table


def test_a_changed_patch_changes_its_own_token_where_tokens_do_not_mix():
    pixels = torch.randn(1, 3, 42, 42, generator=torch.Generator().manual_seed(0))
    assert_a_patch_changes_its_own_token(build("registers", image_size=42), pixels)


@pytest.mark.parametrize(("variant", "prefix"), [("plain", 1), ("registers", 5)])
def test_no_patch_token_is_the_output_of_a_prefix_token(monkeypatch, variant, prefix):
    encoder = build(variant)
    assert encoder.prefix_tokens == prefix
    pixels = torch.randn(2, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    before, features = encoder.tokens(pixels), encoder.trunk.forward_features(pixels)
    assert features.shape[1] == prefix + encoder.num_tokens
    features[:, :prefix] += 1
    monkeypatch.setattr(encoder.trunk, "forward_features", lambda pixels: features)
    assert torch.equal(encoder.tokens(pixels), before)


@pytest.mark.parametrize(
    ("name", "width", "depth", "registers"),
    [("dinov2", 384, 12, 0), ("dinov2_b", 768, 12, 0), ("dinov2_l", 1024, 24, 0), ("dinov2_reg", 384, 12, 4)],
)
def test_a_named_model_has_the_parameters_of_the_paper(name, width, depth, registers):
    with torch.device("meta"):
        trunk = build_trunk(encoder_config(name).model, {})
    found = sum(parameter.numel() for parameter in trunk.parameters())
    block = 12 * width**2 + 15 * width
    outside = 3 * 14**2 + 1 + 1 + 37**2 + (registers if registers else 1) + 2  # patch layer, CLS, positions, final norm
    assert found == depth * block + outside * width
    if name == "dinov2":
        assert found == 22_056_192


@pytest.mark.parametrize("name", NAMES)
def test_fetch_gets_what_the_encoder_asks_for(name):
    release = encoder_config(name).release
    assert encoder_config(release.name).release == release
    assert len(release.sha256) == 64


def test_dino_wms_pixels_are_those_of_the_original():
    visual = torch.randint(0, 256, (1, 2, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frames = visual[0].permute(0, 3, 1, 2) / 255
    dino_wm, native = (build("plain", image_size=196, pixels=pixels) for pixels in ("dino_wm", "native"))
    torch.testing.assert_close(dino_wm.preprocess(visual), resize((frames - 0.5) / 0.5, [196, 196], antialias=True))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (resize(frames, [196, 196], antialias=True) - mean[:, None, None]) / std[:, None, None]
    assert torch.equal(native.preprocess(visual), expected)


def test_an_untrained_network_says_so_and_its_blocks_count():
    encoder = build("plain", seed=3)
    assert encoder.source == "untrained, seed 3"
    dark = torch.zeros(1, 3, 70, 70)
    lit = dark.clone()
    lit[:, :, :14, :14] = 1
    before, after = encoder.tokens(dark)[0, -1], encoder.tokens(lit)[0, -1]  # the patch at the other end
    assert (after - before).norm() > 1e-4 * before.norm()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 200}, r"image_size \(200\) must be a multiple of the patch \(14\), such as 196"),
        ({"output": "pooled"}, r"output \('pooled'\) must be one of patches, cls"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(settings, message):
    with pytest.raises(InstantiationException, match=message):
        instantiate(encoder_config("dinov2"), **{"pretrained": False, "architecture": TINY} | settings)
