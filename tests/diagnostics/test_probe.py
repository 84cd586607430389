"""The linear probe: it recovers a linear map, and says so when there is none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wmbench.data.normalizer import Normalizer
from wmbench.data.windows import Windows
from wmbench.diagnostics.probe import NUM_FEATURES, Probe, fit_probe, folded, load_probe, ridge
from wmbench.encoders.state import State
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel


def state_model(proprio_std: float) -> WorldModel:
    """A model whose latents are the state, divided by proprio_std and lifted to seven features."""
    normalizer = Normalizer(torch.zeros(2), torch.ones(2), torch.tensor([1.0, 2, 3, 4]), torch.full((4,), proprio_std))
    encoder = State(embed_dim=7, velocity_weight=0.3, seed=0)
    options = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": 2, "num_hist": 1}
    predictor = FrameCausalViT(7, 1, 1, 4, 3, depth=1, num_heads=2, head_dim=6, mlp_dim=11, dropout=0.0)
    return WorldModel(encoder, predictor, normalizer, **options)


@pytest.fixture
def windows(numbered_episodes: Callable) -> tuple[Windows, Windows]:
    episodes = numbered_episodes(num_episodes=5, length=9)
    train, valid = (Windows(episodes, np.array(which), num_frames=2, frameskip=2) for which in ([0, 1, 3], [2, 4]))
    return train, valid


def test_a_position_that_is_linear_in_the_latent_is_read_exactly(windows: tuple[Windows, Windows]):
    train, valid = windows
    model = state_model(proprio_std=2.0)
    probe = fit_probe(model, train, valid)
    assert probe.r2 == pytest.approx(1, abs=1e-6) and 1 < probe.rank <= 4  # four numbers, lifted to seven
    obs = valid.get(np.arange(len(valid))).obs
    np.testing.assert_allclose(probe(model.encode(obs)), obs["proprio"][..., :2], atol=1e-4)


def test_a_latent_that_knows_nothing_scores_no_better_than_the_mean(windows: tuple[Windows, Windows]):
    probe = fit_probe(state_model(proprio_std=float("inf")), *windows)
    assert probe.r2 <= 1e-6 and probe.rank == 0  # collapsed


def test_few_frames_are_enough_where_features_outnumber_them(windows: tuple[Windows, Windows]):
    train, valid = windows
    probe = fit_probe(state_model(proprio_std=2.0), train, valid, num_frames=4)
    assert probe.weight.isfinite().all() and np.isfinite(probe.r2)


def test_ridge_solves_its_normal_equations():
    """(X'X / n + penalty * mean variance) w = X'y / n on centred columns, and a bias that maps mean to mean."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)) * [1, 2, 3, 4] + 5, rng.normal(size=(30, 2))
    (weight,), (bias,) = ridge(x, y, np.array([0.3]))
    centred, target = x - x.mean(0), y - y.mean(0)
    penalty = 0.3 * centred.var(0).mean() * np.eye(4)
    np.testing.assert_allclose(weight, np.linalg.solve(centred.T @ centred / 30 + penalty, centred.T @ target / 30))
    np.testing.assert_allclose(x.mean(0) @ weight + bias, y.mean(0))


def test_features_that_are_noise_do_not_make_a_probe_worse_than_the_mean():
    """60 features for 50 frames: least squares fits the noise and reads new frames far worse than their mean does."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(100, 60)), rng.normal(size=(100, 2))
    penalties = np.array([1e-9, 10.0])
    weights, biases = ridge(x[:50], y[:50], penalties)
    error = [np.square(x[50:] @ w + b - y[50:]).sum() for w, b in zip(weights, biases, strict=True)]
    of_the_mean = np.square(y[50:] - y[:50].mean(0)).sum()
    assert error[0] > 1.5 * of_the_mean > error[1]


def test_every_encoder_gets_at_most_so_many_features_and_the_same_ones_every_time():
    x = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0))
    assert folded(x, NUM_FEATURES).shape == (3, NUM_FEATURES)
    assert torch.equal(folded(x, NUM_FEATURES)[:2], folded(x[:2], NUM_FEATURES))
    assert torch.equal(folded(x[:, :7], NUM_FEATURES), x[:, :7])
    one = torch.zeros(1, 5000)
    one[0, 17] = 3.0
    assert folded(one, NUM_FEATURES).abs().sum() == 3  # each feature goes to one sum, whole


def test_a_position_that_few_of_many_features_hold_is_still_read():
    """Two directions of 5000, in which all else is silent: nothing of them is lost by adding features up."""
    generator = torch.Generator().manual_seed(0)
    position = torch.randn(300, 2, generator=generator)
    x = folded(position @ torch.randn(2, 5000, generator=generator), NUM_FEATURES).double().numpy()
    (weight,), (bias,) = ridge(x[:200], position[:200].double().numpy(), np.array([1e-9]))
    np.testing.assert_allclose(x[200:] @ weight + bias, position[200:], atol=1e-4)


def test_a_probe_of_an_older_run_reads_all_features_as_it_did():
    probe = Probe(torch.ones(5000, 2), torch.zeros(2), r2=1.0)
    assert probe(torch.ones(1, 50, 100)).tolist() == [[5000, 5000]]


def test_a_saved_probe_is_loaded_as_it_was(tmp_path: Path):
    probe = Probe(torch.randn(7, 2), torch.randn(2), r2=0.75)
    probe.save(tmp_path)
    loaded = load_probe(tmp_path)
    assert torch.equal(loaded.weight, probe.weight) and torch.equal(loaded.bias, probe.bias) and loaded.r2 == 0.75
    assert loaded.rank is None  # as of an older run
    replace(probe, rank=3.5).save(tmp_path)
    assert load_probe(tmp_path).rank == 3.5


def test_a_run_without_a_probe_has_none(tmp_path: Path):
    assert load_probe(tmp_path) is None
