"""Ridge probes on episodes that they were not fitted to."""

import numpy as np
import pytest
import torch
from linear_world import LinearWorld, encoded_by

from wmbench.diagnostics.linear_probes import Frames, held_out_r2, linear_probes
from wmbench.envs.mazes import Maze


def noisy(num_episodes: int = 10, length: int = 20) -> Frames:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_episodes * length, 3))
    y = x @ rng.normal(size=(3, 2))
    return Frames(x, y, np.repeat(np.arange(num_episodes), length))


def test_what_is_linear_in_the_features_is_read_and_what_is_not_in_them_is_not():
    frames = noisy()
    noise = np.random.default_rng(1).normal(size=frames.features.shape)
    found = held_out_r2(frames, {"noise": frames._replace(features=noise)})
    assert found["true"].value == pytest.approx(1, abs=1e-6)
    assert found["noise"].value < 0.2 and found["noise"].low < found["noise"].value < found["noise"].high


def test_a_probe_is_never_tested_on_an_episode_that_it_was_fitted_to():
    """Every episode's truth is a number of its own, which one of its features says: other episodes do not teach it."""
    episode = np.repeat(np.arange(10), 5)
    x, y = np.eye(10)[episode], np.random.default_rng(0).normal(size=(10, 1))[episode]
    assert held_out_r2(Frames(x, y, episode), {})["true"].value < 0.1


def test_state_and_actions_are_read_from_true_and_from_foreseen_latents_of_a_world_that_is_its_state():
    encoded = encoded_by(LinearWorld(), num_episodes=40, num_frames=9)
    values = linear_probes(LinearWorld(), encoded, Maze("open"), 2, 3, torch.device("cpu"))
    for name in ("position", "velocity", "action"):
        assert values[f"{name}_true"] == pytest.approx(1, abs=1e-4)
        assert values[f"{name}_predicted_1"] == pytest.approx(1, abs=1e-4)
    assert values["position_predicted_3"] == pytest.approx(1, abs=1e-4)
    assert values["wall_distance_true"] < 1, "not linear in the state"


def test_a_model_that_is_deaf_to_actions_foresees_no_action():
    encoded = encoded_by(LinearWorld(), num_episodes=40, num_frames=9)
    values = linear_probes(LinearWorld(gain=0.0), encoded, Maze("open"), 2, 3, torch.device("cpu"))
    assert values["action_true"] > 0.99 and values["action_predicted_1"] < 0.1
