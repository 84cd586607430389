"""The linear probe: it recovers a linear map, and says so when there is none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wmbench.data.normalizer import Normalizer
from wmbench.data.windows import Windows
from wmbench.encoders.state import State
from wmbench.evaluation.diagnostics import Probe, fit_probe, load_probe
from wmbench.models.world_model import WorldModel


def state_model(proprio_std: float) -> WorldModel:
    """A model whose latents are the state, divided by proprio_std and lifted to seven features."""
    normalizer = Normalizer(torch.zeros(2), torch.ones(2), torch.tensor([1.0, 2, 3, 4]), torch.full((4,), proprio_std))
    encoder = State(embed_dim=7, velocity_weight=0.3, seed=0)
    options = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": 2, "num_hist": 1}
    return WorldModel(encoder, nn.Linear(7, 7), normalizer, **options)


@pytest.fixture
def windows(numbered_episodes: Callable) -> tuple[Windows, Windows]:
    episodes = numbered_episodes(num_episodes=5, length=9)
    train, valid = (Windows(episodes, np.array(which), num_frames=2, frameskip=2) for which in ([0, 1, 3], [2, 4]))
    return train, valid


def test_a_position_that_is_linear_in_the_latent_is_read_exactly(windows: tuple[Windows, Windows]):
    train, valid = windows
    model = state_model(proprio_std=2.0)
    probe = fit_probe(model, train, valid)
    assert probe.r2 == pytest.approx(1, abs=1e-6)
    obs, _ = valid.get(np.arange(len(valid)))
    np.testing.assert_allclose(probe(model.encode(obs)), obs["proprio"][..., :2], atol=1e-4)


def test_a_latent_that_knows_nothing_scores_no_better_than_the_mean(windows: tuple[Windows, Windows]):
    assert fit_probe(state_model(proprio_std=1e30), *windows).r2 <= 1e-6


def test_few_frames_are_enough_where_features_outnumber_them(windows: tuple[Windows, Windows]):
    train, valid = windows
    probe = fit_probe(state_model(proprio_std=2.0), train, valid, num_frames=4)
    assert probe.weight.isfinite().all() and np.isfinite(probe.r2)


def test_a_saved_probe_is_loaded_as_it_was(tmp_path: Path):
    probe = Probe(torch.randn(7, 2), torch.randn(2), r2=0.75)
    probe.save(tmp_path)
    loaded = load_probe(tmp_path)
    assert torch.equal(loaded.weight, probe.weight) and torch.equal(loaded.bias, probe.bias) and loaded.r2 == 0.75


def test_a_run_without_a_probe_has_none(tmp_path: Path):
    assert load_probe(tmp_path) is None
