"""Keyed noise: the same for the same name, fresh for any other, and normal."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from wmbench.planning.noise import KeyedNoise, coloured

CPU = torch.device("cpu")


def draw(seed: int = 1, tasks: tuple[int, ...] = (2,), plan: int = 3, iteration: int = 4, size: int = 30) -> torch.Tensor:
    return KeyedNoise(seed, np.array(tasks), plan)(iteration, (size, 5), CPU)


def test_a_tasks_noise_does_not_depend_on_its_batch():
    together = draw(tasks=(4, 9, 7))
    assert together.shape == (3, 30, 5)
    for row, task in enumerate((4, 9, 7)):
        assert torch.equal(draw(tasks=(task,))[0], together[row])


@pytest.mark.parametrize("key", ["seed", "tasks", "plan", "iteration"])
def test_every_part_of_the_name_changes_the_noise(key: str):
    other = {"seed": 2, "tasks": (3,), "plan": 4, "iteration": 5}[key]
    assert torch.equal(draw(), draw())
    assert not (draw() == draw(**{key: other})).any()


def test_names_that_share_their_numbers_share_no_noise():
    """Seed 1 of task 2 is not seed 2 of task 1, nor does one iteration run on into the next."""
    numbers = range(3)
    draws = [draw(s, (t,), p, i) for s in numbers for t in numbers for p in numbers for i in numbers]
    values = torch.stack(draws).flatten(1)
    repeated = [(a, b) for a, b in combinations(range(len(values)), 2) if torch.isin(values[a], values[b]).sum() > 2]
    assert repeated == []  # two of 150 float32 numbers may agree by chance


def test_it_is_standard_normal():
    values = draw(tasks=(0, 1), size=2000).flatten().numpy()
    assert kstest(values, "norm").pvalue > 0.01


def test_noise_under_different_names_is_uncorrelated():
    streams = torch.stack([draw(iteration=i, size=2000).flatten() for i in range(2)] + [draw(plan=9, size=2000).flatten()])
    correlation = torch.corrcoef(streams) - torch.eye(3)
    assert correlation.abs().max() < 4 / 10_000**0.5  # four standard errors


@pytest.mark.parametrize("steps", [7, 10])
def test_the_power_of_coloured_noise_falls_with_frequency_to_the_beta(steps: int):
    white = torch.randn(40_000, steps, 2, generator=torch.Generator().manual_seed(0))
    power = torch.fft.rfft(coloured(white, 1.5), dim=1).abs().square().mean((0, 2))
    frequency = torch.fft.rfftfreq(steps)[1:]
    torch.testing.assert_close(power[1:] / power[1], (frequency / frequency[0]) ** -1.5, rtol=0.03, atol=0)
    torch.testing.assert_close(power[0], power[1], rtol=0.03, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_coloured_noise_is_standard_normal_at_every_step(steps: int):
    white = torch.randn(20_000, steps, 2, generator=torch.Generator().manual_seed(0))
    values = coloured(white, 3.0)
    assert values.dtype == white.dtype
    assert min(kstest(values[:, t, a].numpy(), "norm").pvalue for t in range(steps) for a in range(2)) > 1e-3


def test_without_beta_noise_stays_white():
    white = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(coloured(white, 0), white)


def test_seeds_for_libraries_depend_on_every_part_of_the_name_and_not_on_the_batch():
    seeds = KeyedNoise(1, np.array([4, 9]), 3).seeds()
    assert KeyedNoise(1, np.array([9]), 3).seeds() == seeds[1:]
    others = [KeyedNoise(2, np.array([4]), 3).seeds(), KeyedNoise(1, np.array([4]), 2).seeds()]
    assert len({*seeds, *others[0], *others[1]}) == 4


def test_noise_that_is_drawn_ahead_is_the_same_also_for_fewer_or_other_plans():
    now, ahead = KeyedNoise(1, np.array([4, 9]), 3), KeyedNoise(1, np.array([4, 9]), 3, is_ahead=True)
    for iteration, shape in enumerate([(7, 3, 2), (7, 3, 2), (5, 3, 2), (6, 3, 2), (6, 2, 2)]):
        assert torch.equal(now(iteration, shape, CPU), ahead(iteration, shape, CPU))
    assert torch.equal(now(0, (7, 3, 2), CPU), ahead(0, (7, 3, 2), CPU))
