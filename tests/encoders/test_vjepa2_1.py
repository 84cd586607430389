"""V-JEPA 2.1 against closed forms and PyTorch's own transformer block; its file's names, and refusal of other files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from in_process import build_encoder, encoder_config
from patches import assert_a_patch_changes_its_own_token
from torch import Tensor, nn

from wmbench.encoders.vjepa2 import Architecture
from wmbench.encoders.vjepa2_1 import VJEPA21, Block, VideoViT, rotary_angles, rotate
from wmbench.shapes import Obs

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 4}


def build(file: Path | None = None, **settings: Any) -> VJEPA21:
    """The encoder at tiny size from a file, or untrained."""
    return build_encoder("vjepa2_1", file, **{"architecture": TINY, "image_size": 48} | settings)


def random_tensor(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def random_state(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    trunk = VideoViT(Architecture(**TINY))
    return {f"module.backbone.{name}": torch.randn_like(tensor) / 4 for name, tensor in trunk.state_dict().items()}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A training checkpoint as it is published: the network, its moving average, and what else there is."""
    checkpoint = {"encoder": random_state(1), "ema_encoder": random_state(2), "predictor": {}, "opt": {}, "epoch": 40}
    torch.save(checkpoint, tmp_path / "vitb.pt")
    return tmp_path / "vitb.pt"


@pytest.mark.parametrize(("entry", "seed"), [("ema_encoder", 2), ("encoder", 1)])
def test_the_entry_of_the_file_is_loaded_whole_and_named(official, entry, seed):
    encoder = build(official, entry=entry)
    assert encoder.source == f"{official}, {entry}"
    found = {f"module.backbone.{name}": tensor for name, tensor in encoder.trunk.state_dict().items()}
    expected = random_state(seed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_the_average_is_the_default():
    assert encoder_config("vjepa2_1").entry == "ema_encoder"
    assert len(encoder_config("vjepa2_1").release.sha256) == 64


def test_tensors_have_the_names_and_sizes_of_the_release():
    with torch.device("meta"):
        state = VideoViT(Architecture(**encoder_config("vjepa2_1").architecture)).state_dict()
    block = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    modules = [f"blocks.{index}.{module}" for index in range(12) for module in block]
    modules += ["patch_embed.proj", "patch_embed_img.proj", *(f"norms_block.{index}" for index in range(4))]
    names = {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")} | {"img_mod_embed", "video_mod_embed"}
    assert state.keys() == names
    assert len(names) == 158  # as many as the release has
    assert state["patch_embed_img.proj.weight"].shape == (768, 3, 1, 16, 16)
    assert state["patch_embed.proj.weight"].shape == (768, 3, 2, 16, 16)
    assert sum(tensor.numel() for tensor in state.values()) == 86_833_152


def test_a_missing_extra_or_misshapen_tensor_is_refused_by_name(tmp_path):
    encoder, state = build(), random_state(2)

    def refused(changed: dict[str, Tensor], message: str) -> None:
        torch.save({"ema_encoder": changed}, tmp_path / "vitb.pt")
        with pytest.raises(ValueError, match=rf"vitb\.pt is not this V-JEPA 2\.1: {message}; give weights="):
            encoder.load_trunk(tmp_path / "vitb.pt", "ema_encoder")

    for name in ("img_mod_embed", "patch_embed.proj.bias", "blocks.2.mlp.fc2.weight", "norms_block.0.bias"):
        name = f"module.backbone.{name}"
        refused({n: t for n, t in state.items() if n != name}, f"missing {name}")
        rows = len(state[name])
        refused(state | {name: torch.cat([state[name]] * 2)}, rf"{name} is \({2 * rows},.*\) instead of \({rows},.*\)")
    refused(state | {"module.backbone.norm.bias": torch.zeros(2)}, r"unknown module\.backbone\.norm\.bias")


def test_a_file_without_the_entry_is_refused(tmp_path):
    torch.save({"target_encoder": random_state(1)}, tmp_path / "vitg.pt")
    with pytest.raises(InstantiationException, match=r"vitg\.pt is no state dict"):
        build(tmp_path / "vitg.pt")


def test_rotation_multiplies_pairs_as_complex_numbers():
    x, angles = random_tensor(2, 3, 5, 8), random_tensor(5, 4)
    pairs = torch.complex(x[..., 0::2], x[..., 1::2]) * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(rotate(x, angles), torch.view_as_real(pairs).flatten(-2))


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (14, 24), (1, 3)])
def test_angles_are_position_over_a_power_of_10000_on_the_grid_of_training(rows, columns):
    head_dim = 34  # five pairs an axis, two left over
    angles = rotary_angles(2, rows, columns, head_dim, like=torch.zeros(()))
    assert angles.shape == (2 * rows * columns, 17)
    for token in (0, 1, columns - 1, rows * columns - 1, rows * columns, 2 * rows * columns - 1):
        frame, place = divmod(token, rows * columns)
        row, column = divmod(place, columns)
        positions = (frame, row * 15 / max(rows - 1, 1), column * 15 / (columns - 1))
        expected = [position / 10000 ** (pair / 5) for position in positions for pair in range(5)] + [0.0, 0.0]
        torch.testing.assert_close(angles[token], torch.tensor(expected))


def test_a_block_that_does_not_rotate_is_pytorchs():
    torch.manual_seed(0)
    block = Block(Architecture(**TINY))
    theirs = nn.TransformerEncoderLayer(48, 4, 192, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
    }
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    state = block.state_dict()
    for name, tensor in theirs.state_dict().items():
        for their_name, our_name in names.items():
            name = name.replace(their_name, our_name)
        tensor.copy_(state[name])
    x = random_tensor(2, 7, 48)
    torch.testing.assert_close(block(x, torch.zeros(7, 6)), theirs(x), rtol=1e-4, atol=1e-5)


def test_attention_depends_on_differences_of_positions_alone():
    torch.manual_seed(0)
    block, x, angles = Block(Architecture(**TINY)), random_tensor(2, 7, 48), random_tensor(7, 6)
    shifted = block(x, angles + random_tensor(1, 6))
    torch.testing.assert_close(shifted, block(x, angles), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(block(x, torch.zeros(7, 6)), shifted, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_tokens_leave_through_the_last_norm_and_read_no_other():
    trunk, image = build().trunk, random_tensor(1, 3, 1, 48, 48)
    before = trunk(image)
    for norm in trunk.norms_block[:3]:
        norm.weight.fill_(torch.nan)
    trunk.norms_block[3].bias += 2
    torch.testing.assert_close(trunk(image), before + 2)


def test_an_image_and_a_clip_have_patches_and_a_mark_of_their_own(official):
    trunk = build(official).trunk
    clip = random_tensor(1, 3, 2, 48, 48)
    image = clip[:, :, 1:]
    for parameter, moved, kept in (
        (trunk.img_mod_embed, image, clip),
        (trunk.patch_embed_img.proj.weight, image, clip),
        (trunk.video_mod_embed, clip, image),
        (trunk.patch_embed.proj.weight, clip, image),
    ):
        before = trunk(moved), trunk(kept)
        parameter.data.flatten()[:7] += 1  # not all channels alike, which the norms would undo
        assert not torch.allclose(trunk(moved), before[0])
        assert torch.equal(trunk(kept), before[1])


@torch.no_grad()
@pytest.mark.parametrize(("temporal", "frames", "reach"), [("image", 1, 1), ("still", 2, 1), ("pair", 2, 2)])
def test_a_frame_reaches_its_own_tokens_and_in_pairs_those_of_the_next(temporal, frames, reach):
    encoder = build(temporal=temporal)
    visual = torch.randint(0, 256, (2, 3, 48, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert encoder.preprocess(visual).shape == (6, 3, frames, 48, 48)
    tokens = encoder(Obs(visual=visual, proprio=torch.zeros(2, 3, 4)))
    for frame in range(3):
        changed = visual.clone()
        changed[1, frame] = 255 - changed[1, frame]
        moved = (encoder(Obs(visual=changed, proprio=torch.zeros(2, 3, 4))) != tokens).flatten(2).any(-1)
        assert moved.nonzero().tolist() == [[1, later] for later in range(frame, min(frame + reach, 3))]


def test_a_changed_patch_changes_its_own_token_where_tokens_do_not_mix():
    assert_a_patch_changes_its_own_token(build(), random_tensor(1, 3, 1, 48, 48))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 196}, r"image_size \(196\) must be a multiple of the patch \(16\), such as 192"),
        ({"temporal": "clip"}, r"temporal \('clip'\) must be one of image, still, pair"),
        ({"entry": "predictor"}, r"entry \('predictor'\) must be one of ema_encoder, target_encoder, encoder"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(settings, message):
    with pytest.raises(InstantiationException, match=message):
        build(**settings)
