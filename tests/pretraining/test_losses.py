"""Losses of objectives against closed forms and other libraries' own."""

import numpy as np
import pytest
import torch
from jaxtyping import Float
from tiny_scratch import tiny_encoder, tiny_objective
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from wmbench.encoders.codebook import RevivedCodebook
from wmbench.encoders.latent_vae import divergence
from wmbench.pretraining.base import Pretraining
from wmbench.pretraining.dino import self_distillation
from wmbench.pretraining.tcl import contrast
from wmbench.pretraining.teacher import Teacher
from wmbench.shapes import Batch, Obs


def batch_of(frames: int, count: int = 6) -> tuple[Float[Tensor, "B T 3 h w"], Batch]:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(count, frames, 3, 8, 8, generator=generator) * 2 - 1
    proprio = torch.randn(count, frames, 4, generator=generator)
    obs = Obs(visual=((pixels + 1) * 127).byte().movedim(2, 4), proprio=proprio)
    return pixels, Batch(obs, torch.randn(count, frames, 6, generator=generator))


def parts(objective: Pretraining, frames: int = 1) -> dict[str, float]:
    torch.manual_seed(2)
    return {name: part.item() for name, part in objective(*batch_of(frames)).parts.items()}


def test_infonce_is_a_cross_entropy_over_near_frames_and_the_own_far_one():
    here, near, far = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(0))
    rows = []
    for i in range(4):
        scores = [nn.functional.cosine_similarity(here[i], other, dim=0) / 0.2 for other in (*near, far[i])]
        rows.append(-torch.stack(scores).log_softmax(0)[i])
    torch.testing.assert_close(contrast(here, near, far, 0.2), torch.stack(rows).mean())


def test_infonce_of_embeddings_that_are_all_alike_is_the_log_of_their_number():
    alike = torch.ones(5, 3)
    assert contrast(alike, alike, alike, 0.1).item() == pytest.approx(np.log(6))


def test_the_divergence_is_that_of_two_normals():
    mean, log_variance = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)).double()
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(-1).mean()
    torch.testing.assert_close(divergence(mean, log_variance), expected)
    objective = tiny_objective("vae")
    moments = objective.encoder.continuous(batch_of(1)[0][:, 0])
    log_variance = objective.log_variance(moments)
    frame = kl_divergence(Normal(moments, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum((1, 2)).mean()
    assert parts(objective)["nats"] == pytest.approx(frame.item(), rel=1e-5)


def test_the_gradient_goes_straight_through_codes():
    """In float64: the gradient at the tokens is that at their codes, plus that of the distance to them."""
    torch.manual_seed(0)
    codebook = RevivedCodebook(3, 6).eval()
    tokens = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(2, 4, 3, dtype=torch.float64)
    codes, distance = codebook(tokens)
    nearest = torch.cdist(tokens.flatten(0, 1), codebook.embed.T.double()).argmin(1)
    torch.testing.assert_close(codes, codebook.embed.T[nearest].view_as(tokens).double())
    ((codes * slope).sum() + distance).backward()
    torch.testing.assert_close(tokens.grad, slope + 2 * (tokens - codes).detach() / tokens.numel())


def test_a_teacher_is_the_weighted_mean_of_all_students():
    student = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        student.weight.fill_(8.0)
        teacher = Teacher(student, decay=0.75)
        for value in (4.0, 0.0, 16.0):
            student.weight.fill_(value)
            teacher.follow(student)
    expected = 0.75**3 * 8 + 0.25 * (0.75**2 * 4 + 0.75 * 0 + 16)
    (weight,) = teacher.network.parameters()
    assert weight.item() == expected and not weight.requires_grad


@pytest.mark.parametrize("name", ["jepa", "dino"])
def test_a_teacher_moves_with_the_optimizers_steps_only(name: str):
    objective = tiny_objective(name)
    before = objective.result.project[1].weight.clone()
    objective(*batch_of(1)).total.backward()
    assert torch.equal(objective.result.project[1].weight, before)
    assert all(parameter.grad is None for parameter in objective.result.parameters())
    with torch.no_grad():
        objective.encoder.project[1].weight.add_(1)
    objective.after_step()
    torch.testing.assert_close(objective.result.project[1].weight, before + 0.004)


def test_self_distillation_is_a_cross_entropy_over_pairs_of_different_views():
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(2, 4, 5, generator=generator).softmax(-1)
    scores = torch.randn(3, 4, 5, generator=generator)
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]
    expected = torch.stack([nn.functional.cross_entropy(scores[s], target[t]) for t, s in pairs]).mean()
    torch.testing.assert_close(self_distillation(tuple(target), tuple(scores)), expected)


def test_a_centre_is_the_average_of_the_teachers_scores():
    objective = tiny_objective("dino", large=[1.0, 1.0], num_small=0)
    pixels, batch = torch.zeros(6, 1, 3, 8, 8), batch_of(1)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wmbench.pretraining.views.jitter", lambda pixels: pixels)
        objective(pixels, batch)
    score = objective.teacher_head.network(objective.result.map(pixels[:1, 0]).mean(1))[0]
    torch.testing.assert_close(objective.centre, 0.1 * score)
    objective.eval()(pixels, batch)
    torch.testing.assert_close(objective.centre, 0.1 * score)


def test_errors_of_a_masked_autoencoder_count_where_pixels_are_hidden():
    """A drawing that is right everywhere but 1 off in hidden cells has error 1; one off elsewhere has none."""
    objective = tiny_objective("mae")
    pixels, _ = batch_of(1)
    for off_in_hidden, expected in ((True, 1.0), (False, 0.0)):

        def draw(covered: Tensor, inside: bool = off_in_hidden) -> Tensor:
            is_hidden = (covered == 0).all(1, keepdim=True)
            assert is_hidden.sum((1, 2, 3)).tolist() == [32] * 6  # half of the 16 cells of 2 x 2 pixels
            return pixels[:, 0] + (is_hidden if inside else ~is_hidden)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(objective, "draw", draw)
            assert parts(objective)["reconstruction"] == pytest.approx(expected)


def test_a_masked_frame_foresees_the_tokens_of_the_whole_one_in_hidden_cells_only():
    objective = tiny_objective("jepa")
    pixels, _ = batch_of(1)
    target = nn.functional.layer_norm(objective.result.map(pixels[:, 0]), (5,))
    given: list[Tensor] = []
    objective.predictor.register_forward_hook(lambda module, seen, found: given.append(seen[0]))
    objective.to_target.register_forward_hook(lambda module, seen, found: target + 0.5 * torch.ones_like(found))
    assert parts(objective)["prediction"] == pytest.approx(0.5 * 0.5**2)  # smooth L1 below 1
    (seen,) = given
    masked = torch.isclose(seen - objective.position, objective.mask).all(-1)
    assert masked.sum(1).tolist() == [2] * 6


def test_supervised_and_inverse_are_mean_squared_errors_of_what_they_read():
    batch = batch_of(3)[1]
    for name, target in (("supervised", batch.obs["proprio"][..., :2].flatten(0, 1)), ("inverse", batch.action[:, 1])):
        objective = tiny_objective(name)
        objective.read.register_forward_hook(lambda module, seen, found, target=target: target + 0.3)
        (error,) = parts(objective, frames=3).values()
        assert error == pytest.approx(0.09, rel=1e-4)


def test_views_of_a_gaussian_that_agree_have_the_regularizers_floor_left():
    """SIGReg's statistic has expectation 1.0525 under a Gaussian; agreement is the mean squared distance to large views."""
    objective = tiny_objective("lejepa", tiny_encoder(), num_small=1)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 5, generator=generator)
    objective.project.register_forward_hook(lambda module, seen, found: torch.cat([z, z, z + 0.2]))
    pixels = torch.zeros(400, 1, 3, 8, 8)
    losses = objective(pixels, batch_of(1)[1])
    assert losses.parts["agreement"].item() == pytest.approx(0.2**2 / 3, rel=1e-4)
    assert 0.5 < losses.parts["sigreg"].item() < 12
    expected = losses.parts["agreement"] + 0.05 * 128 / 400 * losses.parts["sigreg"]
    torch.testing.assert_close(losses.total, expected)
