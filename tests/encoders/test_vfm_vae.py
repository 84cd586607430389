"""VFM-VAE: the official adapter's outputs from official files, SigLIP2's levels, and refusal of everything else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from in_process import encoder_config
from omegaconf import DictConfig
from patches import assert_a_patch_changes_its_own_token
from safetensors.torch import save_file
from torch import Tensor

from wmbench.encoders.timm_vit import build_trunk
from wmbench.encoders.vfm_vae import VFMVAE, Adapter, official_name

TINY = {"img_size": 128, "embed_dim": 64, "depth": 4, "num_heads": 4}
SIZES = {"image_size": 64, "level_dim": 8, "z_dim": 4}  # the recording's
FINAL = "ldm_adapter.final_quant.blocks.0"
Build = Callable[..., VFMVAE]


@pytest.fixture(scope="module")
def config() -> DictConfig:
    return encoder_config("vfm_vae")


@pytest.fixture(scope="module")
def recorded(golden: Path) -> dict[str, Any]:
    return torch.load(golden / "vfm_vae_adapter_tiny.pt", weights_only=True)


@pytest.fixture(scope="module")
def tower(config: DictConfig) -> dict[str, Tensor]:
    """A small SigLIP2 in timm's format whose position table and blocks matter."""
    torch.manual_seed(0)
    state = build_trunk(config.model, TINY).state_dict()
    return {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in state.items()}


@pytest.fixture
def build(config: DictConfig, tower: dict[str, Tensor], tmp_path: Path) -> Build:
    """The encoder at tiny size from a file of the adapter, or untrained."""

    def make(adapter: Any = None, trunk: dict[str, Tensor] = tower, **settings: Any) -> VFMVAE:
        files: dict[str, str | None] = {"weights": None, "trunk_weights": None}
        if adapter is not None:
            files = {"weights": str(tmp_path / "adapter.pth"), "trunk_weights": str(tmp_path / "tower.safetensors")}
            torch.save(adapter, files["weights"])
            save_file(trunk, tmp_path / "tower.safetensors")
        given = {"architecture": TINY, "pretrained": adapter is not None, **SIZES, **files, **settings}
        return instantiate(config, **given)

    return make


def assert_official(encoder: VFMVAE, recorded: dict[str, Any]) -> None:
    found = encoder.adapter.gather(recorded["levels"])
    found += [encoder.adapter.moments(recorded["levels"]), encoder.adapter(recorded["levels"])]
    for ours, theirs in zip(found, [*recorded["per_level"], recorded["moments"], recorded["mean"]], strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_an_official_file_gives_the_official_outputs(recorded, build: Build):
    assert_official(build({"G_ema": recorded["G_ema"]}), recorded)


def test_the_adapter_is_found_in_the_whole_autoencoder(recorded, build: Build):
    others = {"vfm_encoder.encoder.vision_model.post_layernorm.bias": torch.ones(5), "synthesis.b8.bias": torch.ones(3)}
    file = {"G": {"a": torch.ones(2)}, "D": {"b": torch.ones(2)}, "G_ema": recorded["G_ema"] | others}
    assert_official(build(file), recorded)


def test_the_adapter_alone_may_be_a_safetensors_file_in_half_precision(recorded, build: Build, tmp_path):
    rounded = {name: tensor.half() for name, tensor in recorded["G_ema"].items()}
    save_file(rounded, tmp_path / "small.safetensors")
    expected = build({name: tensor.float() for name, tensor in rounded.items()}).adapter.state_dict()
    found = build(rounded, weights=str(tmp_path / "small.safetensors")).adapter.state_dict()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)  # the types too


def test_the_decoders_side_of_the_adapter_is_left_out(recorded, build: Build):
    side = {"ldm_adapter.post_quant.blocks.0.norm1.bias": torch.ones(4), "ldm_adapter.linear_proj.weight": torch.ones(3, 4)}
    assert_official(build({"G_ema": recorded["G_ema"] | side}), recorded)


def test_a_missing_extra_or_misshapen_tensor_is_refused_by_name(recorded, build: Build):
    state = recorded["G_ema"]

    def refused(changed: dict[str, Tensor], message: str) -> None:
        with pytest.raises(InstantiationException, match=rf"adapter.pth is not this VFM-VAE: {message}.*; give weights="):
            build({"G_ema": changed})

    for name in (official_name("level.2.attn.q_bias"), f"{FINAL}.mlp.w2.weight", f"{FINAL}.attn.zero_k_bias"):
        refused({n: t for n, t in state.items() if n != name}, f"missing {name}")
        wrong = torch.cat([state[name], state[name]])
        refused(state | {name: wrong}, rf"{name} is \({wrong.shape[0]},.* instead of \({wrong.shape[0] // 2},")
    for name in ("ldm_adapter.patch_quants.3.0.blocks.0.norm1.bias", "ldm_adapter.scale", "head.bias"):
        refused(state | {name: torch.zeros(2)}, f"unknown {name}")


def test_a_tower_that_is_not_timms_is_refused_by_name(recorded, tower, build: Build):
    for changed, message in (
        ({name: tensor for name, tensor in tower.items() if name != "norm.bias"}, "missing norm.bias"),
        (tower | {"vision_model.norm": torch.zeros(2)}, "unknown vision_model.norm"),
        (tower | {"pos_embed": torch.zeros(1, 9, 64)}, r"pos_embed is \(1, 9, 64\) instead of \(1, 64, 64\)"),
    ):
        with pytest.raises(InstantiationException, match=rf"tower.safetensors is not vit.*: {message}"):
            build(recorded["G_ema"], changed)


class Unknown:
    """A class that a reader of tensors does not have."""


def test_a_pickled_network_is_refused_with_the_way_out(build: Build):
    with pytest.raises(InstantiationException, match=r"holds more than tensors.*save only G_ema's state dict"):
        build({"G_ema": Unknown()})


@pytest.mark.parametrize("size", [64, 96])
def test_the_levels_are_those_of_transformers(recorded, tower, build: Build, size):
    """Its hidden states 0, half way and last; at 96 pixels it resamples the position table."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    width, depth = TINY["embed_dim"], TINY["depth"]
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": depth}
    theirs = SiglipVisionModel(SiglipVisionConfig(**sizes, num_attention_heads=4, image_size=128, patch_size=16)).eval()
    state = {"embeddings.position_embedding.weight": tower["pos_embed"][0]}
    for name, tensor in tower.items():
        if ".qkv." in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                state[renamed(name).replace("qkv", f"{letter}_proj")] = part
        elif name != "pos_embed" and not name.startswith("attn_pool."):
            state[renamed(name)] = tensor
    own = theirs.state_dict()
    prefix = "vision_model." if "vision_model.post_layernorm.bias" in own else ""
    head = {name: tensor for name, tensor in own.items() if name.startswith(f"{prefix}head.")}
    theirs.load_state_dict({prefix + name: tensor for name, tensor in state.items()} | head)

    encoder = build(recorded["G_ema"], image_size=size)
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    double = torch.nn.functional.interpolate(pixels, (2 * size, 2 * size), mode="bilinear")
    with torch.no_grad():
        output = theirs(double, output_hidden_states=True, interpolate_pos_encoding=True)
    expected = [output.hidden_states[0], output.hidden_states[depth // 2], output.last_hidden_state]
    for found, level in zip(encoder.levels(double), expected, strict=True):
        assert (found - level).norm() <= 1e-5 * level.norm()
    torch.testing.assert_close(encoder.tokens(pixels), encoder.adapter(expected), rtol=1e-4, atol=1e-4)


def renamed(name: str) -> str:
    """A tensor's name in transformers from that in timm."""
    name = name.replace("patch_embed.proj", "embeddings.patch_embedding").replace("blocks.", "encoder.layers.")
    name = name.replace("attn.proj", "attn.out_proj").replace(".attn.", ".self_attn.").replace(".norm", ".layer_norm")
    return f"post_layer{name}" if name.startswith("norm.") else name


def test_a_changed_patch_changes_its_own_token_where_tokens_do_not_mix(recorded, build: Build):
    """Inside the patch: upscaling mixes pixels across its border."""
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert_a_patch_changes_its_own_token(build(recorded["G_ema"], image_size=48), pixels, border=1)


def test_the_released_sizes_have_the_parameters_of_the_release(config):
    with torch.device("meta"):
        trunk = build_trunk(config.model, {})
        adapter = Adapter(trunk.embed_dim, config.level_dim, config.z_dim)
    levels, final, tower = (sum(p.numel() for p in part.parameters()) for part in (adapter.level, adapter.final, trunk))
    assert (round(levels / 1e6, 2), round(final / 1e6, 2), round(tower / 1e6, 1)) == (9.74, 1.85, 316.7)
    assert [part.attn.num_heads for part in (*adapter.level, adapter.final)] == [16, 16, 16, 12]
    assert (len(trunk.blocks), trunk.patch_embed.grid_size, trunk.num_prefix_tokens) == (24, (32, 32), 0)


def test_fetch_gets_both_files_and_tables_carry_both_licences(recorded, config, build: Build):
    assert [config[key].name for key in ("release", "trunk_release")] == ["vfm_vae", "vfm_vae"]
    encoder = build(recorded["G_ema"])
    assert "NVIDIA non-commercial" in encoder.licence
    assert "SigLIP2 Apache-2.0" in encoder.licence
    assert "adapter.pth over " in encoder.source
    untrained = build(seed=3)
    assert (untrained.source, untrained.licence) == ("untrained, seed 3", "MIT")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 196}, r"image_size \(196\) must be a multiple of .* \(16\), such as 192"),
        ({"z_dim": 5}, r"narrows 96 features to 10, which must be a divisor"),
        ({"level_dim": 0}, r"narrows 64 features to 0"),
        ({"trunk_weights": "some.pth"}, r"pretrained=false leaves trunk_weights=some\.pth unread"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(build: Build, settings, message):
    with pytest.raises(InstantiationException, match=message):
        build(**settings)
