"""Attention's own arithmetic: dropout on the CPU, queries of the last frames."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from wmbench.models.attention import Dropout, frame_causal_attention, thinned_attention


def qkv(batch: int, length: int, features: int = 5) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, 2, length, features) for _ in range(3)]


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_dropout_takes_its_share_of_the_weights_and_scales_the_rest(dropout: float):
    """With the identity for values what comes out is the weights themselves."""
    q, k, _ = qkv(40, 30, features=30)
    identity = torch.eye(30).expand(40, 2, 30, 30)
    weights, thinned = scaled_dot_product_attention(q, k, identity), thinned_attention(q, k, identity, dropout)
    kept = thinned != 0
    torch.testing.assert_close(thinned[kept], weights[kept] / (1 - dropout), rtol=1e-4, atol=1e-6)
    standard_error = (dropout * (1 - dropout) / kept.numel()) ** 0.5
    assert 1 - kept.float().mean().item() == pytest.approx(dropout, abs=4 * standard_error + 2**-16)
    neighbours = torch.corrcoef(torch.stack([kept.flatten()[:-1], kept.flatten()[1:]]).float())[0, 1]
    assert abs(neighbours.item()) < 4 * kept.numel() ** -0.5  # drawn together from one number, and yet independent
    assert not torch.equal(thinned_attention(q, k, q, dropout), thinned_attention(q, k, q, dropout))


def test_a_layers_dropout_takes_its_share_in_training_alone():
    layer, x = Dropout(0.25), torch.rand(300, 401) + 1
    thinned = layer(x)
    kept = thinned != 0
    torch.testing.assert_close(thinned[kept], x[kept] / 0.75)
    assert 1 - kept.float().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / x.numel()) ** 0.5)
    assert torch.equal(layer.eval()(x), x)


def test_without_dropout_it_is_attention():
    q, k, v = qkv(3, 7)
    torch.testing.assert_close(thinned_attention(q, k, v, 0.0), scaled_dot_product_attention(q, k, v))


def test_a_cpu_in_training_drops_weights_and_a_frame_sees_no_later_one():
    q, k, v = qkv(3, 6)
    found = frame_causal_attention(q, k, v, 2, 0.5)
    assert not torch.allclose(found, frame_causal_attention(q, k, v, 2, 0.0))
    later = v.clone()
    later[:, :, 4:] = torch.inf
    assert frame_causal_attention(q, k, later, 2, 0.5)[:, :, :4].isfinite().all()


@pytest.mark.parametrize("num_tokens", [1, 2])
def test_queries_of_the_last_frames_alone_see_what_they_see_among_all(num_tokens: int):
    q, k, v = qkv(3, 6)
    whole = frame_causal_attention(q, k, v, num_tokens, 0.0)
    last = frame_causal_attention(q[:, :, 4:], k, v, num_tokens, 0.0)
    torch.testing.assert_close(last, whole[:, :, 4:])
