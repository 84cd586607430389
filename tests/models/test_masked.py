"""A predictor that learns with tokens hidden from it."""

import pytest
import torch

from wmbench.models.masked import MaskedViT

SIZES = {"dim": 5, "num_tokens": 4, "num_hist": 3, "action_dim": 6, "action_embed_dim": 3}
INNER = {"depth": 1, "num_heads": 2, "head_dim": 6, "mlp_dim": 8, "dropout": 0.0}


def masked(share: float) -> MaskedViT:
    torch.manual_seed(0)
    return MaskedViT(masked_share=share, **SIZES, **INNER)


def test_the_same_tokens_are_hidden_in_all_frames_but_the_first_as_often_as_asked_for():
    predictor, z = masked(0.3), torch.randn(2000, 3, 4, 5)
    shown = predictor.mask(z)
    assert torch.equal(shown[:, 0], z[:, 0])
    is_hidden = (shown[:, 1:] == predictor.hidden).all(-1)
    assert torch.equal(is_hidden[:, 0], is_hidden[:, 1])
    assert torch.equal(shown[:, 1:][~is_hidden], z[:, 1:][~is_hidden])
    assert abs(is_hidden[:, 0].float().mean().item() - 0.3) < 4 * (0.3 * 0.7 / 8000) ** 0.5


def test_nothing_is_hidden_in_evaluation_nor_with_a_share_of_zero():
    z, action, target = torch.randn(3, 3, 4, 5), torch.randn(3, 3, 6), torch.randn(3, 3, 4, 5)
    predictor = masked(0.9)
    expected = (predictor(z, action) - target).square().mean()
    torch.testing.assert_close(predictor.eval().loss(z, action, target).total, expected)
    torch.testing.assert_close(masked(0.0).train().loss(z, action, target).total, expected)
    assert (predictor.train().loss(z, action, target).total - expected).abs() > 1e-4


def test_a_share_of_all_is_refused():
    with pytest.raises(ValueError, match=r"predictor\.masked_share \(1\.0\) must be at least 0 and below 1"):
        masked(1.0)
