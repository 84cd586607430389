"""Rollouts against what happens, on a linear world whose errors are known."""

import numpy as np
import pytest
import torch
from linear_world import LinearWorld, encoded_by

from wmbench.diagnostics.open_loop import open_loop, open_loop_errors

CPU = torch.device("cpu")


def test_a_model_that_is_right_has_no_error_and_beats_copying_and_shuffled_actions():
    errors = open_loop_errors(LinearWorld(), encoded_by(LinearWorld(), num_episodes=4, num_frames=9), 2, 3, CPU)
    values = open_loop(errors)
    assert values["error_3"] == pytest.approx(0, abs=1e-9)
    assert values["copy_ratio_3"] == pytest.approx(0, abs=1e-6) and values["shuffled_ratio_1"] == pytest.approx(0, abs=1e-6)


def test_a_model_that_forgets_a_constant_push_errs_by_its_sum():
    """z gains 2 at each step and the model foresees no change: after k steps the squared error is (2 k)^2."""
    encoded = encoded_by(LinearWorld(push=2.0), num_episodes=3, num_frames=8, actions=0.0)
    values = open_loop(open_loop_errors(LinearWorld(), encoded, 2, 2, CPU))
    assert values["error_1"] == pytest.approx(4) and values["error_2"] == pytest.approx(16)
    assert values["error_2_low"] == pytest.approx(16) and values["copy_ratio_2_high"] == pytest.approx(1)


def test_a_model_that_is_deaf_to_actions_is_no_better_under_the_true_ones():
    encoded = encoded_by(LinearWorld(), num_episodes=5, num_frames=8)
    values = open_loop(open_loop_errors(LinearWorld(gain=0.0), encoded, 2, 2, CPU))
    assert values["shuffled_ratio_1"] == pytest.approx(1) and values["copy_ratio_2"] == pytest.approx(1)


def test_episodes_shorter_than_what_is_seen_and_foreseen_are_refused():
    encoded = encoded_by(LinearWorld(), num_episodes=2, num_frames=4)
    with pytest.raises(ValueError, match=r"episodes of 4 frames hold no 2 seen and 3 foreseen ones; lower horizon"):
        open_loop_errors(LinearWorld(), encoded, 2, 3, CPU)


def test_the_number_of_episodes_rolled_out_at_once_changes_nothing(monkeypatch):
    world = LinearWorld(gain=0.5)
    encoded = encoded_by(world, num_episodes=7, num_frames=8)
    together = open_loop_errors(LinearWorld(), encoded, 2, 2, CPU)
    monkeypatch.setattr("wmbench.diagnostics.open_loop.EPISODES_AT_ONCE", 2)
    for name, errors in open_loop_errors(LinearWorld(), encoded, 2, 2, CPU).items():
        np.testing.assert_allclose(errors, together[name], rtol=1e-6)
