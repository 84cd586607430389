"""The distance to the goal: means over tokens and features, of the last frame or of all."""

import pytest
import torch

from wmbench.planning.objective import goal_distance


def test_last_is_the_mean_square_of_the_last_frame():
    goal = torch.randn(2, 3, 5)
    z = goal[:, None, None].repeat(1, 4, 6, 1, 1)
    z[:, :, :-1] = 99
    z[1, 2, -1, 0, 4] += 3
    expected = torch.zeros(2, 4)
    expected[1, 2] = 3**2 / 15
    torch.testing.assert_close(goal_distance(z, goal, "last"), expected)


def test_all_is_the_mean_square_over_frames():
    goal = torch.zeros(2, 3, 5)
    z = torch.arange(6.0)[None, None, :, None, None].expand(2, 4, 6, 3, 5)
    torch.testing.assert_close(goal_distance(z, goal, "all"), torch.full((2, 4), (0 + 1 + 4 + 9 + 16 + 25) / 6))


def test_an_unknown_mode_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown objective mode 'first'; known: last, all"):
        goal_distance(torch.zeros(2, 4, 6, 3, 5), torch.zeros(2, 3, 5), "first")
