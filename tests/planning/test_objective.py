"""The planning objective: visual and proprio distances of the last frame, or of all with growing weights."""

import math

import pytest
import torch
from torch import Tensor

from wmbench.planning.objective import Objective


class Splits:
    """Latents whose last feature of the first token is proprio."""

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z[..., :-1], z[..., :1, -1:]


class AllVisual:
    def split(self, z: Tensor) -> tuple[Tensor, None]:
        return z, None


def test_last_is_the_mean_square_of_the_last_frame():
    goal = torch.randn(2, 3, 5)
    z = goal[:, None, None].repeat(1, 4, 6, 1, 1)
    z[:, :, :-1] = 99
    z[1, 2, -1, 0, 4] += 3
    expected = torch.zeros(2, 4)
    expected[1, 2] = 3**2 / 15
    torch.testing.assert_close(Objective()(AllVisual(), goal + 7, z, goal), expected)


def test_all_weighs_later_frames_base_times_more_and_averages_over_the_start_too():
    """Distances 9 (start), 0, 1, 4, 16 with weights 1, 3, 9, 27, 81 of a sum of 121, divided by 5 frames once more."""
    goal = torch.zeros(2, 3, 5)
    z = torch.tensor([0.0, 1, 2, 4])[None, None, :, None, None].expand(2, 6, 4, 3, 5)
    expected = (9 * 1 + 0 * 3 + 1 * 9 + 4 * 27 + 16 * 81) / 121 / 5
    cost = Objective("all", base=3)(AllVisual(), goal + 3, z, goal)
    torch.testing.assert_close(cost, torch.full((2, 6), expected))


@pytest.mark.parametrize("mode", ["last", "all"])
def test_alpha_weighs_the_proprio_of_the_first_token_beside_the_visual_mean(mode: str):
    goal, start = torch.zeros(2, 3, 5), torch.zeros(2, 3, 5)
    z = torch.zeros(2, 4, 1, 3, 5)
    z[0, 1, 0, 0, 4] = 2  # proprio as it is read
    z[0, 1, 0, 2, 4] = 9  # a copy that nobody reads
    z[0, 1, 0, 2, 0] = 6  # visual: one of twelve features
    weight = 1.0 if mode == "last" else 2 / 3 / 2
    expected = torch.zeros(2, 4)
    expected[0, 1] = weight * (6**2 / 12 + 0.5 * 2**2)
    torch.testing.assert_close(Objective(mode, alpha=0.5)(Splits(), start, z, goal), expected)
    expected[0, 1] = weight * 6**2 / 12
    torch.testing.assert_close(Objective(mode, alpha=0)(Splits(), start, z, goal), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "first"}, "unknown objective mode 'first'; known: last, all"),
        ({"alpha": -1}, r"objective.alpha \(-1\) must not be negative"),
        ({"alpha": math.nan}, r"objective.alpha \(nan\) must not be negative"),
        ({"base": math.inf}, r"objective.base \(inf\) must be positive"),
        ({"base": 0}, r"objective.base \(0\) must be positive"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Objective(**settings)
