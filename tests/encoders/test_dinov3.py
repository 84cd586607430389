"""DINOv3: the official outputs from official files in both architectures, and refusal of everything else."""

import runpy
from itertools import pairwise
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
from torch.nn import functional as F

from wmbench.commands import CONF
from wmbench.encoders.dinov2 import build_trunk
from wmbench.encoders.dinov3 import DINOv3, DINOv3ConvNeXt, build_convnext, load_convnext, load_vit, official_convnext_name

TINY = {"embed_dim": 64, "depth": 3, "num_heads": 4, "qkv_bias": True}
SMALL = {"embed_dim": 32, "depth": 1, "num_heads": 2}
STAGES = {"depths": (1, 2, 1, 1), "dims": (8, 12, 20, 24)}
NAMES = sorted(path.stem for path in Path(CONF, "encoder").glob("dinov3*.yaml"))
VITS = {"dinov3": (384, 12), "dinov3_splus": (384, 12), "dinov3_b": (768, 12), "dinov3_l": (1024, 24)}


@pytest.fixture(scope="module")
def recorded(golden: Path) -> dict[str, Any]:
    return torch.load(golden / "dinov3_encoder_tiny.pt", weights_only=True)


def build(file: Path | None = None, name: str = "dinov3", **settings: Any) -> DINOv3:
    """The recorded network's architecture with weights from a file, or untrained."""
    return build_encoder(name, file, **{"architecture": TINY, "image_size": 64} | settings)


def build_stages(file: Path | None = None, **settings: Any) -> DINOv3ConvNeXt:
    return build_encoder("dinov3_convnext", file, **STAGES | {"image_size": 48} | settings)


def save(state: dict[str, Tensor], folder: Path, name: str = "official.pth") -> Path:
    torch.save(state, folder / name)
    return folder / name


def error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    ("output", "key"), [("patches", "patch_tokens_64"), ("patches", "patch_tokens_96"), ("cls", "cls_64")]
)
def test_an_official_file_gives_the_official_outputs(recorded, tmp_path, output, key):
    image = recorded[f"image_{key[-2:]}"]
    encoder = build(save(recorded["state_dict"], tmp_path), image_size=image.shape[-1], output=output)
    assert error(encoder.tokens(image).reshape(recorded[key].shape), recorded[key]) <= 1e-5


def test_the_recording_is_verified_by_the_script(golden, monkeypatch, capsys):
    file = golden / "dinov3_encoder_tiny.pt"
    monkeypatch.setattr("sys.argv", ["verify_encoder.py", "encoder=dinov3", f"file={file}"])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(Path(CONF).parent / "scripts" / "verify_encoder.py"), run_name="__main__")
    assert exit.value.code == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["patch_tokens_64", "patch_tokens_96", "cls_64"]


def test_a_file_in_timms_format_rotates_by_bfloat16_as_the_released_official_ones(recorded, tmp_path):
    state = recorded["state_dict"]
    released = state | {"rope_embed.periods": state["rope_embed.periods"].bfloat16()}
    trunk = build_trunk(encoder_config("dinov3").model, TINY)
    load_vit(trunk, save(released, tmp_path), "dinov3")
    save_file({name: tensor.contiguous() for name, tensor in trunk.state_dict().items()}, tmp_path / "model.safetensors")
    image = recorded["image_64"]
    official, timms = build(tmp_path / "official.pth").tokens(image), build(tmp_path / "model.safetensors").tokens(image)
    assert torch.equal(timms, official)
    assert 1e-5 < error(timms, recorded["patch_tokens_64"]) < 1e-3  # recorded with the periods in float32


def test_periods_go_where_the_encoder_goes(recorded, tmp_path):
    encoder = build(save(recorded["state_dict"], tmp_path))
    assert torch.equal(encoder.get_buffer("trunk.rope.periods"), recorded["state_dict"]["rope_embed.periods"])
    assert all(buffer.is_meta for buffer in encoder.to("meta").buffers())


def test_the_mask_turns_the_bias_of_the_key_off_and_no_other(recorded, tmp_path):
    state, image = recorded["state_dict"], recorded["image_64"]
    before = build(save(state, tmp_path)).tokens(image)
    for part, moves in enumerate((True, False, True)):
        bias = state["blocks.1.attn.qkv.bias"].clone()
        bias[64 * part : 64 * part + 64] += 1
        after = build(save(state | {"blocks.1.attn.qkv.bias": bias}, tmp_path)).tokens(image)
        assert torch.equal(after, before) != moves
    unmasked = {"blocks.1.attn.qkv.bias_mask": torch.ones(192)}
    with pytest.raises(InstantiationException, match=r"blocks\.1\.attn\.qkv\.bias is not zero where this model has no bias"):
        build(save(state | unmasked, tmp_path))


def test_a_model_without_biases_takes_an_official_file_whose_biases_are_zero(recorded, tmp_path):
    zero = {name: torch.zeros(192) for name in recorded["state_dict"] if name.endswith("qkv.bias")}
    official = save(recorded["state_dict"] | zero, tmp_path)
    image = recorded["image_64"]
    without = build(official, architecture=TINY | {"qkv_bias": False}).tokens(image)
    assert error(without, build(official).tokens(image)) <= 1e-6
    with pytest.raises(InstantiationException, match=r"blocks\.0\.attn\.qkv\.bias is not zero.*weights="):
        build(save(recorded["state_dict"], tmp_path), architecture=TINY | {"qkv_bias": False})


def test_a_gated_mlp_reads_the_official_names(tmp_path):
    """The official layer: w3(silu(w1 x) * w2 x)."""
    trunk = build_trunk(encoder_config("dinov3_splus").model, SMALL)
    own = {name: torch.randn_like(tensor) for name, tensor in trunk.state_dict().items()}
    official = {
        name.replace("reg_token", "storage_tokens").replace("gamma_", "ls").replace("mlp.fc1_g", "mlp.w1")
        .replace("mlp.fc1_x", "mlp.w2").replace("mlp.fc2", "mlp.w3"): tensor
        for name, tensor in own.items()
    }  # fmt: skip
    official = {f"{name}.gamma" if name.endswith(("ls1", "ls2")) else name: tensor for name, tensor in official.items()}
    official |= {"mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.ones(4)}
    official |= {f"blocks.0.attn.qkv.{name}": torch.zeros(96) for name in ("bias", "bias_mask")}
    encoder = build(save(official, tmp_path), "dinov3_splus", architecture=SMALL)
    x = torch.randn(1, 3, 32)
    gate, value = (
        F.linear(x, official[f"blocks.0.mlp.{w}.weight"], official[f"blocks.0.mlp.{w}.bias"]) for w in ("w1", "w2")
    )
    expected = F.linear(F.silu(gate) * value, official["blocks.0.mlp.w3.weight"], official["blocks.0.mlp.w3.bias"])
    torch.testing.assert_close(encoder.trunk.blocks[0].mlp(x), expected)


def test_a_missing_extra_or_misshapen_tensor_is_refused_by_name(recorded, tmp_path):
    state = {n: t for n, t in recorded["state_dict"].items() if not n.startswith(("blocks.1", "blocks.2"))}
    with torch.device("meta"):
        trunk = build_trunk(encoder_config("dinov3").model, TINY | {"depth": 1})

    def refused(changed: dict[str, Tensor], message: str) -> None:
        with pytest.raises(ValueError, match=rf"official.pth is not dinov3: .*{message}.*weights="):
            load_vit(trunk, save(changed, tmp_path), "dinov3")

    for name, tensor in state.items():
        refused({n: t for n, t in state.items() if n != name}, f"missing {name}")
        wrong = torch.cat([tensor, tensor])
        refused(state | {name: wrong}, rf"{name} is \({wrong.shape[0]},.* instead of \({tensor.shape[0]},")
    refused(state | {"local_cls_norm.weight": torch.zeros(64)}, r"unknown local_cls_norm\.weight")


def test_weights_of_another_network_are_refused(recorded, tmp_path, golden):
    official = save(recorded["state_dict"], tmp_path)
    with pytest.raises(
        InstantiationException, match=r"is not vit_small.*cls_token is \(1, 1, 64\) instead of \(1, 1, 384\)"
    ):
        build(official, architecture={})
    with pytest.raises(InstantiationException, match=r"missing blocks\.0\.mlp\.w1\.weight"):
        build(official, "dinov3_splus", architecture=TINY)
    dinov2 = torch.load(golden / "dinov2_encoder_tiny.pt", weights_only=True)["registers"]["state_dict"]
    with pytest.raises(InstantiationException, match=r"patch_embed\.proj\.weight is \(48, 3, 14, 14\) instead of"):
        build(save(dinov2, tmp_path))
    with pytest.raises(InstantiationException, match=r"missing stem\.0\.weight"):
        build_stages(official)


def test_a_changed_patch_changes_its_own_token_where_tokens_do_not_mix():
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert_a_patch_changes_its_own_token(build(image_size=48), pixels)


def test_no_patch_token_is_the_output_of_the_cls_token_or_a_register(monkeypatch):
    encoder = build()
    assert encoder.prefix_tokens == 5
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before, features = encoder.tokens(pixels), encoder.trunk.forward_features(pixels)
    assert features.shape[1] == 5 + encoder.num_tokens
    features[:, :5] += 1
    monkeypatch.setattr(encoder.trunk, "forward_features", lambda pixels: features)
    assert torch.equal(encoder.tokens(pixels), before)


@pytest.mark.parametrize("name", VITS)
def test_a_named_vit_has_the_parameters_of_the_paper(name):
    with torch.device("meta"):
        trunk = build_trunk(encoder_config(name).model, {})
    width, depth = VITS[name]
    block = 16 * width**2 + 16 * width if name == "dinov3_splus" else 12 * width**2 + 12 * width
    outside = 3 * 16**2 + 1 + 1 + 4 + 2  # patch layer, CLS, registers, final norm
    found = sum(parameter.numel() for parameter in trunk.parameters())
    assert found == depth * block + outside * width
    if name == "dinov3":
        assert found == 21_586_944


def test_the_named_convnext_has_the_parameters_of_the_paper():
    with torch.device("meta"):
        network = build_convnext(encoder_config("dinov3_convnext").model, None, None)
    depths, dims = (3, 3, 9, 3), (96, 192, 384, 768)
    blocks = sum(depth * (8 * dim**2 + (49 + 1 + 2 + 5 + 1) * dim) for depth, dim in zip(depths, dims, strict=True))
    between = sum(4 * narrow * wide + wide + 2 * narrow for narrow, wide in pairwise(dims))
    stem_and_norm = 3 * 16 * 96 + 3 * 96 + 2 * 768
    assert sum(parameter.numel() for parameter in network.parameters()) == blocks + between + stem_and_norm == 27_820_128


def official_stages(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Three stages of ConvNeXt (arXiv 2201.03545) written out in the official file's names."""

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, 1e-6).movedim(-1, 1)

    for i, depth in enumerate(STAGES["depths"][:3]):
        down = f"downsample_layers.{i}"
        if i == 0:
            x = norm(F.conv2d(x, state[f"{down}.0.weight"], state[f"{down}.0.bias"], stride=4), f"{down}.1")
        else:
            x = F.conv2d(norm(x, f"{down}.0"), state[f"{down}.1.weight"], state[f"{down}.1.bias"], stride=2)
        for j in range(depth):
            block = {name: state[f"stages.{i}.{j}.{name}.weight"] for name in ("dwconv", "pwconv1", "pwconv2")}
            bias = {name: state[f"stages.{i}.{j}.{name}.bias"] for name in block}
            y = F.conv2d(x, block["dwconv"], bias["dwconv"], padding=3, groups=x.shape[1])
            y = F.linear(norm(y, f"stages.{i}.{j}.norm").movedim(1, -1), block["pwconv1"], bias["pwconv1"])
            y = F.linear(F.gelu(y), block["pwconv2"], bias["pwconv2"]) * state[f"stages.{i}.{j}.gamma"]
            x = x + y.movedim(-1, 1)
    return x


@pytest.fixture(scope="module")
def stages() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random weights of a small ConvNeXt in timm's and in the official format."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        network = build_convnext(encoder_config("dinov3_convnext").model, **STAGES)
    own = {name: torch.randn(tensor.shape, generator=generator) / 4 for name, tensor in network.state_dict().items()}
    official = {official_convnext_name(name): tensor for name, tensor in own.items()}
    return own, official | {f"norms.3.{name}": official[f"norm.{name}"] for name in ("weight", "bias")}


@torch.no_grad()
def test_convnext_gives_the_third_stage_row_by_row_from_both_formats(stages, tmp_path):
    own, official = stages
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    expected = official_stages(official, pixels)
    assert expected.shape == (2, 20, 3, 3)
    for file in (save(official, tmp_path), save(own, tmp_path, "timm.pth")):
        encoder = build_stages(file)
        assert encoder.grid == (3, 3)
        found = encoder.tokens(pixels)
        for row in range(3):
            for column in range(3):
                torch.testing.assert_close(found[:, 3 * row + column], expected[:, :, row, column])


def test_a_convnext_file_is_checked_to_its_last_stage(stages, tmp_path):
    with torch.device("meta"):
        network = build_convnext(encoder_config("dinov3_convnext").model, **STAGES)
    for state in stages:
        for name in ("stages.3.0.pwconv2.bias", "norms.3.weight", "stages.3.blocks.0.mlp.fc2.bias", "head.norm.weight"):
            if name in state:
                with pytest.raises(ValueError, match=rf"official.pth is not convnext: missing {name}; give weights="):
                    load_convnext(network, save({n: t for n, t in state.items() if n != name}, tmp_path), "convnext")
        with pytest.raises(ValueError, match=r"unknown head\.fc\.weight"):
            load_convnext(network, save(state | {"head.fc.weight": torch.zeros(2, 24)}, tmp_path), "convnext")


@pytest.mark.parametrize("name", NAMES)
def test_fetch_gets_a_pinned_file_that_no_other_network_has(name):
    cfg = encoder_config(name)
    release = cfg.release
    assert encoder_config(release.name).release == release
    revision = release.url.split("/resolve/")[1].split("/")[0]
    assert len(bytes.fromhex(revision)) == 20
    assert release.sha256 is None or len(bytes.fromhex(release.sha256)) == 32
    same_file = [other for other in map(encoder_config, NAMES) if other.release.file == release.file]
    assert all((other.model, other.release) == (cfg.model, release) for other in same_file)


@pytest.mark.parametrize("name", ["dinov3", "dinov3_convnext"])
def test_without_weights_the_error_says_how_to_get_them(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InstantiationException, match=rf"scripts/fetch\.py encoder={name}\b"):
        instantiate(encoder_config(name), release={"url": (tmp_path / "absent").as_uri()})


def test_an_untrained_network_says_so_and_its_blocks_count():
    for encoder in (build(seed=3), build_stages(seed=3, image_size=64)):
        assert encoder.source == "untrained, seed 3"
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        lit = pixels.clone()
        lit[:, :, 16:32, 16:32] += 1
        before, after = encoder.tokens(pixels)[0, 6], encoder.tokens(lit)[0, 6]  # its neighbour
        assert (after - before).norm() > 1e-4 * before.norm()


@pytest.mark.parametrize("make", [build, build_stages])
def test_a_size_that_sixteen_does_not_divide_is_refused(make):
    message = r"image_size \(196\) must be a multiple of the (patch|stride) \(16\), such as 192"
    with pytest.raises(InstantiationException, match=message):
        make(image_size=196)
