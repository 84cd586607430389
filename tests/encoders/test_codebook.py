"""The tokenizer's codebook: distances along principal axes, codes that follow, begin anew, and are counted."""

import pytest
import torch
from torch import Tensor

from wmbench.encoders import codebook as module
from wmbench.encoders.codebook import WeightedCodebook


def latents(frames: int, tokens: int) -> Tensor:
    """Of five features that vary together, the last two hardly at all."""
    generator = torch.Generator().manual_seed(1)
    mixed = torch.randn(frames, tokens, 5, generator=generator) * torch.tensor([3.0, 1.0, 0.5, 0.05, 0.01])
    return 2 + mixed @ torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q


def make(num_codes: int = 7) -> WeightedCodebook:
    torch.manual_seed(0)
    return WeightedCodebook(5, num_codes).train()


def test_the_nearest_code_is_nearest_along_principal_axes_weighted_by_variance():
    codebook, x = make(), latents(3, 8)
    codebook(x)
    flat = x.flatten(0, 1)
    covariance = torch.cov(flat.T, correction=0)
    torch.testing.assert_close(codebook.covariance, covariance)
    variance, axes = torch.linalg.eigh(covariance)
    along = (flat[:, None] - codebook.embed.T) @ axes
    expected = (variance * along.square()).sum(dim=-1).argmin(dim=1)
    assert torch.equal(codebook.nearest(flat), expected)
    assert not torch.equal(torch.cdist(flat, codebook.embed.T).argmin(dim=1), expected)


def test_later_batches_move_mean_and_covariance_by_a_hundredth():
    codebook, first, second = make(), latents(3, 8), latents(2, 8) + 1
    codebook(first)
    mean, covariance = codebook.mean.clone(), codebook.covariance.clone()
    codebook(second)
    flat = second.flatten(0, 1)
    torch.testing.assert_close(codebook.mean, 0.99 * mean + 0.01 * flat.mean(dim=0))
    centred = flat - codebook.mean
    torch.testing.assert_close(codebook.covariance, 0.99 * covariance + 0.01 * centred.T @ centred / 16)


def test_unused_codes_become_latents_and_used_ones_go_on():
    codebook, x = make(num_codes=40), latents(3, 8)
    flat = x.flatten(0, 1)
    nearest = codebook.nearest(flat)
    codebook(x)
    is_latent = (codebook.embed.T[:, None] == flat).all(-1).any(1)
    assert not set(nearest.tolist()) & set(is_latent.nonzero().flatten().tolist())
    assert is_latent.sum() == 40 - len(nearest.unique())
    assert torch.equal(codebook.cluster_size[is_latent], torch.full((int(is_latent.sum()),), 1e-3))


def test_codes_end_on_the_latents_where_there_are_enough_of_them():
    codebook, x = make(num_codes=12), latents(1, 6)
    for _ in range(300):
        _, distance = codebook(x)
    assert distance < 1e-4 * x.var()
    torch.testing.assert_close(codebook.codes(x), x, rtol=0.02, atol=0.02)


def test_perplexity_is_the_number_of_codes_that_are_used_equally_often():
    codebook = make()
    codebook.cluster_size.copy_(torch.tensor([4.0, 0, 4, 0, 4, 0, 0]))
    assert codebook.perplexity == pytest.approx(3, rel=1e-5)


def test_codes_are_columns_of_the_codebook_to_the_bit_and_asking_for_them_moves_nothing():
    codebook, x = make(), latents(3, 8)
    codebook(x)
    before = {name: tensor.clone() for name, tensor in codebook.state_dict().items()}
    assert torch.equal(codebook.codes(x), codebook.embed.T[codebook.nearest(x.flatten(0, 1))].view_as(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in codebook.state_dict().items())


def test_tokens_compared_a_few_at_a_time_find_the_same_codes(monkeypatch: pytest.MonkeyPatch):
    codebook, flat = make(), latents(3, 8).flatten(0, 1)
    whole = codebook.nearest(flat)
    monkeypatch.setattr(module, "COMPARED_AT_ONCE", 5)
    assert torch.equal(codebook.nearest(flat), whole)


def test_mixed_precision_finds_the_same_codes():
    codebook, flat = make(num_codes=40), 100 + latents(3, 8).flatten(0, 1)
    codebook(flat[None])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = codebook.nearest(flat)
    assert torch.equal(mixed, codebook.nearest(flat))


def test_operations_can_be_counted_without_memory():
    with torch.device("meta"):
        codebook = WeightedCodebook(5, 7)
    assert codebook.codes(torch.empty(3, 8, 5, device="meta")).shape == (3, 8, 5)
