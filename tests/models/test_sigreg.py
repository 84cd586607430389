"""SIGReg against hand-computed values of its 17-knot rule (LeJEPA's and LeWM's) and against its properties."""

import math

import pytest
import torch
from torch import Tensor

from wmbench.models.sigreg import SIGReg, epps_pulley


@pytest.mark.parametrize(
    ("samples", "expected"),
    [([0.0], 0.4020476), ([0.0] * 128, 0.4020476 * 128), ([1.0] * 128, 1.18601 * 128), ([-1.0, 0.0, 1.0, 2.0], 0.5581904)],
    ids=["a zero", "zeros", "ones", "four numbers"],
)
def test_known_samples_give_known_values(samples: list[float], expected: float):
    column = torch.tensor(samples, dtype=torch.float64)[:, None]
    assert epps_pulley(column).item() == pytest.approx(expected, rel=5e-6)


def test_it_is_the_integral_of_the_squared_distance_to_the_normals_characteristic_function():
    """The closed form over the whole line; 17 knots in [0, 3] come within a percent."""
    h = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = torch.exp(-((h[:, None] - h) ** 2) / 2).mean((0, 1))
    normal = torch.exp(-(h**2) / 4).mean(0)
    whole_line = 20 * (math.sqrt(2 * math.pi) * pairs - 2 * math.sqrt(math.pi) * normal + math.sqrt(2 * math.pi / 3))
    torch.testing.assert_close(epps_pulley(h), whole_line, rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("scale", "num_samples", "expected"),
    [(1.0, 7, 1.05246), (1.0, 128, 1.05246), (0.5, 128, 19.8), (0.9, 128, 1.61), (1.1, 128, 1.72), (2.0, 128, 31.9)],
)
def test_normal_samples_have_their_expected_value(scale: float, num_samples: int, expected: float):
    h = scale * torch.randn(num_samples, 4000, generator=torch.Generator().manual_seed(0))
    values = epps_pulley(h)
    standard_error = values.std().item() / 4000**0.5
    assert values.mean().item() == pytest.approx(expected, abs=4 * standard_error + 0.003 * expected)


def test_order_and_sign_of_the_samples_do_not_matter():
    h = torch.randn(9, 4, dtype=torch.float64)
    torch.testing.assert_close(epps_pulley(-h.flip(0)), epps_pulley(h))


def test_its_gradient_is_that_of_finite_differences():
    torch.autograd.gradcheck(epps_pulley, torch.randn(5, 2, dtype=torch.float64).requires_grad_())


def test_a_collapsed_latent_feels_no_gradient():
    h = torch.zeros(8, 3, requires_grad=True)
    epps_pulley(h).sum().backward()
    assert not h.grad.any()


def latents(features: int) -> Tensor:
    return torch.randn(6, 4, 3, features, generator=torch.Generator().manual_seed(0))  # B T N D


def test_samples_are_those_of_the_batch_at_each_step_and_token():
    """With one feature every direction is +1 or -1, which the statistic does not feel."""
    z = latents(features=1)
    expected = torch.stack([epps_pulley(z[:, t, n]) for t in range(4) for n in range(3)]).mean()
    torch.testing.assert_close(SIGReg(num_directions=5, weight=1.0)(z), expected)


def test_directions_are_drawn_anew():
    regularizer, z = SIGReg(num_directions=5, weight=1.0), latents(features=7)
    assert regularizer(z) != regularizer(z)


def test_autocast_does_not_make_it_coarse():
    regularizer, z = SIGReg(num_directions=5, weight=1.0), latents(features=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = regularizer(z)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, regularizer(z))


def test_its_weight_belongs_to_batches_of_128():
    regularizer = SIGReg(num_directions=5, weight=0.09)
    assert regularizer.loss_weight(128) == pytest.approx(0.09)
    assert regularizer.loss_weight(32) * 32 == pytest.approx(0.09 * 128)
