"""Rotary positions: only distances between frames count, and a rollout computes no frame twice."""

import pytest
import torch
from situations import ACTION, DIM, TOKENS, model_around, situation

from wmbench.models.vit_rope import RotaryViT, turned

SIZES = {"depth": 2, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "dropout": 0.0, "action_embed_dim": 5}


def predictor(num_hist: int = 3, **changed) -> RotaryViT:
    torch.manual_seed(0)
    sizes = {"dim": DIM, "num_tokens": TOKENS, "num_hist": num_hist, "action_dim": ACTION} | SIZES | changed
    return RotaryViT(**sizes).eval().requires_grad_(False)


def test_products_depend_on_the_distance_of_frames_only():
    q, k = torch.randn(2, 1, 1, 1, 6).double()
    at = lambda t, s: (turned(q, torch.tensor([t])) * turned(k, torch.tensor([s]))).sum()  # noqa: E731
    torch.testing.assert_close(at(5.0, 3.0), at(2.0, 0.0), rtol=1e-5, atol=1e-5)
    assert (at(5.0, 3.0) - at(5.0, 4.0)).abs() > 1e-3


def test_turning_frame_by_frame_is_turning_at_once():
    x, one = torch.randn(2, 3, 4, 6), torch.ones(4)
    torch.testing.assert_close(turned(turned(x, one), one), turned(x, 2 * one))


@pytest.mark.parametrize("num_hist", [1, 2, 3])
def test_a_rollout_is_the_attention_of_one_long_film_in_which_frames_see_the_last_ones_only(num_hist):
    """Beyond the window too: the plain way below masks a film of all frames, layer by layer."""
    model = predictor(num_hist)
    z, past, plans = situation(1)
    found = model_around(model).rollout(z, past, plans)
    film, blocks = z[:1], plans[:1, 2]
    for step in range(plans.shape[2]):
        predicted = masked(model, film, blocks[:, : step + 1], num_hist)
        torch.testing.assert_close(found[0, 2, step], predicted[0], rtol=1e-4, atol=1e-5)
        film = torch.cat([film, predicted[:, None]], dim=1)


def masked(model: RotaryViT, film: torch.Tensor, blocks: torch.Tensor, num_hist: int) -> torch.Tensor:
    """The frame after a film, with all of it computed and a mask that shows each frame num_hist frames."""
    x = model.join(film, blocks)
    frames = torch.arange(film.shape[1]).repeat_interleave(TOKENS)
    x = x.flatten(1, 2) + model.pos_embedding.repeat(1, film.shape[1], 1)
    apart = frames[:, None] - frames
    for attention, feed_forward in model.layers:
        qkv = attention.to_qkv(attention.norm(x)).unflatten(-1, (3, 2, 6)).permute(2, 0, 3, 1, 4)
        q, k = (turned(part, frames.float()) for part in qkv[:2])
        weights = (q @ k.transpose(-1, -2) / 6**0.5).masked_fill((apart < 0) | (apart >= num_hist), -torch.inf)
        out = weights.softmax(-1) @ qkv[2]
        x = x + attention.to_out(out.transpose(1, 2).flatten(2))
        x = x + feed_forward(x)
    return model.norm(x)[:, -TOKENS:, :DIM]


def test_each_block_of_a_rollout_computes_one_frame(monkeypatch):
    model, widths = predictor(), []
    extend = RotaryViT.extend
    monkeypatch.setattr(
        RotaryViT, "extend", lambda self, z, *given, **more: widths.append(z.shape[1]) or extend(self, z, *given, **more)
    )
    z, past, plans = situation(3)
    model_around(model).rollout(z, past, plans)
    assert widths == [2] + [1] * plans.shape[2]  # the real frames before the newest, once per task, then one per block


def test_an_odd_head_is_refused():
    with pytest.raises(ValueError, match=r"predictor.head_dim \(5\) must be even"):
        predictor(head_dim=5)
