"""Normalisation: statistics against numpy, blocks against single actions, and back again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from wmbench.data import episodes as storage
from wmbench.data.episodes import Episodes
from wmbench.data.normalizer import Normalizer, fit_normalizer


@pytest.fixture
def normalizer() -> Normalizer:
    generator = torch.Generator().manual_seed(0)
    a, P = 2, 4
    mean = torch.randn(a + P, generator=generator)
    std = 0.1 + torch.rand(a + P, generator=generator)
    return Normalizer(mean[:a], std[:a], mean[a:], std[a:])


@pytest.fixture
def random_episodes(tmp_path: Path) -> Episodes:
    """3 episodes of 40 steps, every dimension with its own mean and scale."""
    manifest = {"num_episodes": 3, "episode_length": 40, "store_every": 40, "image_size": 4}
    storage.create(tmp_path / "random.h5", manifest)
    rng, columns = np.random.default_rng(0), storage.map_columns(tmp_path / "random.h5", "r+")
    columns["action"][:] = rng.normal([0.5, -2], [0.3, 4], (120, 2))
    columns["proprio"][:] = rng.normal([1, 20, -3, 0], [0.1, 2, 5, 30], (120, 4))
    columns["state"][:] = 99  # not what is asked for
    for column in columns.values():
        column.flush()
    return Episodes(tmp_path / "random.h5")


def test_statistics_are_those_of_all_steps_with_the_unbiased_std(random_episodes: Episodes):
    """DINO-WM's: validation episodes count too, and torch's std divides by n - 1 (reference, section 2.3)."""
    normalizer = fit_normalizer(random_episodes)
    for name, values in (("action", random_episodes.action), ("proprio", random_episodes.proprio)):
        exact = values.astype(np.float64)
        np.testing.assert_allclose(getattr(normalizer, f"{name}_mean"), exact.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(getattr(normalizer, f"{name}_std"), exact.std(0, ddof=1), rtol=1e-5)


def test_normalised_data_have_zero_mean_and_unit_variance(random_episodes: Episodes):
    normalizer = fit_normalizer(random_episodes)
    for values in (
        normalizer.normalize_action(torch.from_numpy(random_episodes.action)),
        normalizer.normalize_proprio(torch.from_numpy(random_episodes.proprio)),
    ):
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(0), 1, rtol=1e-5)


def test_numbered_steps_have_the_statistics_of_a_count(numbered_episodes: Callable):
    """Steps 0 .. 10 of 3 episodes: mean 5 and variance 10 x 33 / 32."""
    normalizer = fit_normalizer(numbered_episodes(num_episodes=3, length=11))
    torch.testing.assert_close(normalizer.action_mean, torch.tensor([1.0, 5.0]))
    assert normalizer.action_std[1].item() == pytest.approx((10 * 33 / 32) ** 0.5, rel=1e-6)
    torch.testing.assert_close(normalizer.proprio_mean, torch.tensor([1.0, 5.0, -1.0, -5.0]))


@pytest.mark.parametrize("frameskip", [1, 3, 5])
def test_a_block_is_normalised_action_by_action(normalizer: Normalizer, frameskip: int):
    actions = torch.randn(6, 7, frameskip, 2, generator=torch.Generator().manual_seed(1))
    block = normalizer.normalize_action(actions.flatten(2))
    expected = (actions.double() - normalizer.action_mean.double()) / normalizer.action_std.double()
    torch.testing.assert_close(block, expected.flatten(2).float())
    torch.testing.assert_close(normalizer.denormalize_action(block), actions.flatten(2))


def test_proprio_is_normalised_dimension_by_dimension(normalizer: Normalizer):
    proprio = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))
    expected = (proprio.double() - normalizer.proprio_mean.double()) / normalizer.proprio_std.double()
    torch.testing.assert_close(normalizer.normalize_proprio(proprio), expected.float())


def test_the_statistics_travel_in_the_state_dict_without_being_trained(normalizer: Normalizer):
    other = Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4))
    other.load_state_dict(normalizer.state_dict())
    block = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    assert torch.equal(other.normalize_action(block), normalizer.normalize_action(block))
    assert torch.equal(other.normalize_proprio(block[:, :4]), normalizer.normalize_proprio(block[:, :4]))
    assert not list(normalizer.parameters())


def test_a_dimension_that_never_changes_stays_finite(numbered_episodes: Callable):
    """One episode: its number is the same at every step."""
    episodes = numbered_episodes(num_episodes=1, length=9)
    normalizer = fit_normalizer(episodes)
    assert normalizer.normalize_action(torch.from_numpy(episodes.action)).isfinite().all()
    assert normalizer.normalize_proprio(torch.from_numpy(episodes.proprio)).isfinite().all()
