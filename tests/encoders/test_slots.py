"""Slots: what they share out, that they are a frame's own in a fixed order, and a training that a world model then reads."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from in_process import run_here

from wmbench.encoders.slots import SlotAttention, SlotDecoder, Slots

TINY = (
    "encoder.num_slots=3 encoder.slot_dim=8 encoder.pretrained=false encoder.backbone.image_size=28 "
    "+encoder.architecture={depth:1,embed_dim:48,num_heads:3}"
)


@pytest.fixture
def attention() -> SlotAttention:
    torch.manual_seed(0)
    return SlotAttention(num_tokens=10, dim=6, num_slots=3, slot_dim=8, num_iters=2)


def test_every_token_is_shared_out_whole_and_a_slot_gathers_the_mean_of_its_shares(attention: SlotAttention):
    """With a cell that takes what is gathered as it is, and nothing refined."""
    attention.cell = Gathered()  # type: ignore[assignment]
    torch.nn.init.zeros_(attention.refine[-1].weight)
    torch.nn.init.zeros_(attention.refine[-1].bias)
    attention.num_iters = 1
    tokens = torch.randn(2, 10, 6)
    slots = attention(tokens)
    seen = attention.norm(attention.read(tokens) + attention.place)
    share = attention.shares(seen, attention.first.expand(2, -1, -1))
    torch.testing.assert_close(share.sum(-1), torch.ones(2, 10))
    for frame in range(2):
        for slot in range(3):
            weight = share[frame, :, slot] / share[frame, :, slot].sum()
            torch.testing.assert_close(slots[frame, slot], (weight[:, None] * attention.value(seen[frame])).sum(0))


class Gathered(torch.nn.Module):
    def forward(self, gathered: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        return gathered


def test_a_frame_has_the_same_slots_every_time_and_alone(attention: SlotAttention):
    tokens = torch.randn(4, 10, 6)
    together = attention(tokens)
    assert torch.equal(together, attention(tokens))
    torch.testing.assert_close(attention(tokens[2:3])[0], together[2])
    assert (together[:, 0] - together[:, 1]).abs().max() > 1e-3


def test_slots_are_drawn_in_their_shares_of_the_frame():
    torch.manual_seed(0)
    decoder = SlotDecoder(8, image_size=20)
    pixels, diff = decoder(torch.randn(2, 3, 8))
    assert pixels.shape == (2, 3, 20, 20) and pixels.abs().max() <= 1 and diff == 0
    slots = torch.randn(2, 3, 8)
    torch.testing.assert_close(decoder(slots.flip(1))[0], decoder(slots)[0])


def test_they_are_trained_by_pretrain_and_read_by_a_world_model(numbered_episodes: Callable, tmp_path: Path):
    data = numbered_episodes(num_episodes=4, length=12).path
    few = "training.max_steps=1 training.batch_size=2 training.valid_batches=1 device=cpu"
    told = run_here(tmp_path, f"pretrain.py encoder=slots {TINY} env.data={data} output=s.safetensors {few}")
    assert "encoder.weights=s.safetensors" in told
    words = (
        f"encoder=slots {TINY} encoder.weights=s.safetensors predictor.depth=1 predictor.mlp_dim=8 num_hist=2 frameskip=2"
    )
    run_here(tmp_path, f"train.py {words} env.data={data} {few} model_name=objects ckpt_base_path=.")
    assert (tmp_path / "outputs" / "objects" / "step_000001.safetensors").exists()


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"num_slots \(0\), slot_dim \(8\) and num_iters \(3\) must be positive"):
        Slots(lambda **given: None, 0, 8, 3, False, None, "x.safetensors", 0, {})  # type: ignore[arg-type, return-value]
