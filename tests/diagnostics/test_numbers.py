"""Effective rank, straightness, ranking, intervals and predictors, on cases with a known answer."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from wmbench.diagnostics.estimate import mean, ratio
from wmbench.diagnostics.predictors import features, predictors_of_success
from wmbench.diagnostics.ranking import regret, spearman
from wmbench.diagnostics.straightness import straightness
from wmbench.models.effective_rank import effective_rank


def test_latents_along_one_direction_have_rank_one_and_equal_directions_count_whole():
    line = np.outer(np.arange(7.0), [1.0, -2.0, 3.0])
    assert effective_rank(line) == pytest.approx(1)
    corners = np.concatenate([np.eye(3), -np.eye(3)])
    assert effective_rank(corners) == pytest.approx(3)
    assert effective_rank(corners @ np.diag([1, 1, 0])) == pytest.approx(2)
    assert effective_rank(np.ones((4, 3))) == 0


def test_a_straight_line_is_straight_and_a_way_back_is_not():
    direction = torch.tensor([1.0, 2.0, -1.0])
    there = torch.arange(5.0)[:, None] * direction
    to_and_fro = (torch.arange(5.0) % 2)[:, None] * direction
    corner = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [2, 1, 0], [2, 2, 0]])
    np.testing.assert_allclose(straightness(torch.stack([there, to_and_fro, corner])), [1, -1, 0], atol=1e-6)


def test_spearman_is_scipys_and_a_constant_row_orders_nothing():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (4, 9)).astype(float), rng.normal(size=(4, 9))
    expected = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), expected)
    assert spearman(np.ones(5), b[0, :5]) == 0


def test_regret_is_what_the_imagined_best_loses_to_the_true_best():
    imagined = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    truth = np.array([[0.5, 2.0, 4.0], [0.0, 1.0, 2.0]])
    assert regret(imagined, truth).tolist() == [1.5, 0.0]


def test_the_interval_of_a_mean_is_about_two_standard_errors_and_that_of_a_constant_is_none():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found, error = mean(values), values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    constant = ratio(np.full(5, 3.0), np.full(5, 2.0))
    assert (constant.value, constant.low, constant.high) == (1.5, 1.5, 1.5)
    assert ratio(np.ones(3), np.zeros(3)).value == 0
    assert mean(np.array([1.0, 2.0])).named("x") == {"x": 1.5, "x_low": 1.0, "x_high": 2.0}


def test_an_interval_needs_two_units():
    with pytest.raises(ValueError, match="give at least 2"):
        mean(np.ones(1))


def test_what_goes_with_success_comes_first_with_an_interval_over_rows():
    rng = np.random.default_rng(1)
    success = np.linspace(0, 1, 12).tolist()
    rows = [{"noise": rng.normal(), "error": -(s**3), "constant": 1.0} | ({"rare": s} if s > 0.8 else {}) for s in success]
    table = predictors_of_success(rows, success).set_index("diagnostic")
    assert table.index[0] == "error" and "rare" not in table.index, "three rows have it, too few"
    assert table.loc["error", "spearman"] == pytest.approx(-1) and table.loc["error", "high"] < -0.9
    assert table.loc["constant", "spearman"] == 0
    assert table.loc["noise", "low"] < 0 < table.loc["noise", "high"] and table.loc["noise", "rows"] == 12


def test_features_are_the_numbers_of_the_parts_without_their_intervals():
    found = features({"step": 3, "part": {"error": 0.5, "error_low": 0.1, "error_high": 0.9, "rank": 2}})
    assert found == {"part.error": 0.5, "part.rank": 2.0}
