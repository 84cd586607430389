"""The planning objective: visual and proprio distances of the last frame, or of all with growing weights."""

import math

import pytest
import torch
from torch import Tensor

from wmbench.models.quasimetric import Quasimetric
from wmbench.planning.objective import Cosine, Learned, Objective, TopK, VarianceWeighted


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


def scores(objective: Objective, z: Tensor, goal: Tensor) -> Tensor:
    """Costs of z (B S N D), the last frames of plans."""
    return objective(AllVisual(), goal, z[:, :, None], goal)


Z, GOAL = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)), torch.randn(2, 3, 5)


def test_a_token_that_never_varies_weighs_nothing_and_weights_are_one_on_average():
    objective = VarianceWeighted(variance=torch.tensor([0.0, 1.0, 3.0]))
    moved = Z.clone()
    moved[:, :, 0] += 9
    assert torch.equal(scores(objective, moved, GOAL), scores(objective, Z, GOAL))
    goal = torch.zeros(2, 3, 5)
    z = torch.tensor([7.0, 2, 1])[:, None].expand(2, 4, 3, 5)
    torch.testing.assert_close(scores(objective, z, goal), torch.full((2, 4), (4 * 0.75 + 1 * 2.25) / 3))


def test_tokens_that_vary_alike_are_the_uniform_objective():
    torch.testing.assert_close(
        scores(VarianceWeighted(variance=torch.full((3,), 0.2)), Z, GOAL), scores(Objective(), Z, GOAL)
    )


def test_top_k_counts_the_tokens_that_differ_most_and_all_of_them_are_the_uniform_objective():
    torch.testing.assert_close(scores(TopK(k=3), Z, GOAL), scores(Objective(), Z, GOAL))
    z = torch.tensor([1.0, 4, 2])[:, None].expand(2, 4, 3, 5)
    torch.testing.assert_close(scores(TopK(k=2), z, torch.zeros(2, 3, 5)), torch.full((2, 4), (16 + 4) / 2))


def test_cosine_sees_directions_whatever_the_scale():
    lengths = torch.rand(2, 4, 3, 1) + 0.5
    torch.testing.assert_close(scores(Cosine(), lengths * Z, 7 * GOAL), scores(Cosine(), Z, GOAL))
    torch.testing.assert_close(scores(Cosine(), GOAL[:, None].expand(2, 4, 3, 5), GOAL), torch.zeros(2, 4))
    torch.testing.assert_close(scores(Cosine(), -GOAL[:, None].expand(2, 4, 3, 5), GOAL), torch.full((2, 4), 2.0))


def test_the_learned_distance_is_from_the_plans_end_to_the_goal_and_not_back():
    distance = Quasimetric(dim=5, num_tokens=3, token_width=4, width=6, expectile=0.1).eval()
    found = scores(Learned(distance=distance), Z, GOAL)
    expected = torch.stack([distance(Z[:, plan], GOAL) for plan in range(4)], 1)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(expected, torch.stack([distance(GOAL, Z[:, plan]) for plan in range(4)], 1))


@pytest.mark.parametrize("mode", ["last", "all"])
@pytest.mark.parametrize(
    "objective",
    [
        (TopK, {"k": 2}),
        (Cosine, {}),
        (VarianceWeighted, {"variance": torch.tensor([0.0, 1, 2])}),
        (Learned, {"distance": Quasimetric(5, 3, token_width=4, width=6, expectile=0.1).eval().requires_grad_(False)}),
    ],
)
def test_every_objective_can_be_followed_downhill(mode: str, objective: tuple):
    kind, settings = objective
    cost, z = kind(mode=mode, **settings), Z[:, :, None].repeat(1, 1, 2, 1, 1).requires_grad_()
    before = cost(AllVisual(), GOAL, z, GOAL)
    (slope,) = torch.autograd.grad(before.sum(), z)
    assert slope.isfinite().all() and (slope.flatten(2).norm(dim=-1) > 0).all()
    assert (cost(AllVisual(), GOAL, z - 1e-3 * slope / slope.norm(), GOAL) < before).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TopK(k=0), r"objective.k \(0\) must be positive"),
        (lambda: TopK(k=4).check(3), r"objective.k \(4\) must not exceed the model's tokens \(3\)"),
        (lambda: VarianceWeighted(variance=torch.zeros(3)), "none of the run's tokens varies"),
        (lambda: VarianceWeighted(variance=torch.ones(4)).check(3), "4 tokens were measured and the model has 3"),
        (lambda: Cosine(alpha=-1), r"objective.alpha \(-1\) must not be negative"),
        (lambda: Quasimetric(5, 3, token_width=4, width=6, expectile=1.0), r"distance.expectile \(1.0\) must be between"),
        (lambda: Quasimetric(5, 3, token_width=0, width=6, expectile=0.1), r"token_width \(0\) must be positive"),
    ],
)
def test_settings_of_other_objectives_that_cannot_work_are_refused_by_name(build, message: str):
    with pytest.raises(ValueError, match=message):
        build()
