"""Intervals and tests against closed forms, published numbers and tables worked by hand."""

from math import sqrt

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom, norm, ttest_1samp, ttest_ind
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.proportion import proportion_confint

from wmbench.evaluation.statistics import decided_after, detectable, e_value, mcnemar, welch, wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (3, 10), (47, 50), (50, 50), (430, 500)])
def test_wilson_is_the_score_interval(successes: int, trials: int):
    """The p for which (observed - p) / sqrt(p (1 - p) / n) is the normal's 97.5 % point."""
    z, share = norm.ppf(0.975), successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    assert wilson(successes, trials) == pytest.approx((centre - half, centre + half), abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(47, 50, 0.838, 0.979), (48, 50, 0.865, 0.989), (43, 50, 0.738, 0.930), (430, 500, 0.827, 0.888), (0, 100, 0, 0.037)],
)
def test_wilson_gives_known_intervals(successes: int, trials: int, low: float, high: float):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=6e-4)


def test_wilson_and_mcnemar_agree_with_statsmodels():
    assert wilson(37, 90) == pytest.approx(proportion_confint(37, 90, method="wilson"))
    assert mcnemar(*rows(31, 12, 4, 9)) == pytest.approx(statsmodels_mcnemar([[31, 12], [4, 9]], exact=True).pvalue)


def test_a_higher_confidence_widens_the_interval():
    low, high = wilson(30, 40)
    wider_low, wider_high = wilson(30, 40, confidence=0.99)
    assert wider_low < low < 30 / 40 < high < wider_high


def rows(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (5, 0, 2 * 1 / 2**5),
        (0, 6, 2 * 1 / 2**6),
        (6, 1, 2 * (1 + 7) / 2**7),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
    ],
)
def test_mcnemar_is_the_exact_test_on_tasks_that_one_row_alone_solves(only_first: int, only_second: int, expected: float):
    assert mcnemar(*rows(11, only_first, only_second, 4)) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_does_not_feel_tasks_that_both_or_neither_solve():
    assert mcnemar(*rows(0, 6, 1, 0)) == mcnemar(*rows(70, 6, 1, 23))


def test_mcnemar_does_not_feel_the_rows_order():
    first, second = rows(5, 2, 8, 3)
    assert mcnemar(first, second) == mcnemar(second, first)


@pytest.mark.parametrize(("many", "few"), [(5, 5), (7, 3), (10, 2)])
def test_welch_is_scipys(many: int, few: int):
    rng = np.random.default_rng(many)
    first, second = rng.normal(0.6, 0.1, many), rng.normal(0.5, 0.03, few)
    expected = ttest_ind(first, second, equal_var=False).confidence_interval(0.9)
    assert welch(first, second, confidence=0.9) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_against_a_known_floor_welch_is_the_t_interval_of_one_sample():
    runs = np.array([0.41, 0.52, 0.47, 0.6])
    expected = ttest_1samp(runs, 0.2).confidence_interval()
    assert welch(runs, np.array([0.2])) == pytest.approx((expected.low - 0.2, expected.high - 0.2))
    assert welch(np.array([0.2]), runs) == pytest.approx((0.2 - expected.high, 0.2 - expected.low))


@pytest.mark.parametrize(("first", "second"), [([0.4], [0.6]), ([0.4, 0.4, 0.4], [0.6, 0.6]), ([0.1 * 3] * 3, [1.0])])
def test_runs_that_tell_no_spread_give_no_interval(first: list[float], second: list[float]):
    assert welch(np.array(first), np.array(second)) is None


@pytest.mark.parametrize(("num_seeds", "expected"), [(3, 10.4), (5, 6.9), (8, 5.1), (10, 4.5), (20, 3.1)])
def test_seeds_alone_find_what_the_t_test_of_two_groups_finds(num_seeds: int, expected: float):
    """A spread of 3.4 points between training runs, as jepa-wms has it."""
    found = detectable([3.4**2 / num_seeds] * 2, [num_seeds - 1] * 2)
    assert found == pytest.approx(expected, abs=0.05)
    assert found == pytest.approx(3.4 * TTestIndPower().solve_power(nobs1=num_seeds, alpha=0.05, power=0.8), rel=1e-3)


def test_tasks_alone_find_what_the_normal_approximation_finds():
    """500 tasks of which 20 % are discordant: 2.8 standard errors."""
    z = norm.ppf(0.975) + norm.ppf(0.8)
    assert detectable([0.2 / 500], [499]) == pytest.approx(z * sqrt(0.2 / 500), rel=0.005)


def test_more_tasks_do_not_make_up_for_few_training_runs():
    seeds = [0.034**2 / 3] * 2
    few, many = (detectable([*seeds, 0.2 / tasks], [2, 2, tasks - 1]) for tasks in (100, 100_000))
    assert 0.10 < many < few


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 1), (8, 0), (10, 30)])
def test_the_e_value_is_the_mean_likelihood_ratio_over_all_rates(wins: int, losses: int):
    mean, _ = quad(lambda rate: rate**wins * (1 - rate) ** losses, 0, 1)
    assert e_value(wins, losses) == pytest.approx(mean * 2 ** (wins + losses))


def test_eight_discordant_tasks_decide_if_all_favour_one_row():
    first = np.array([True, False, True] * 20)
    second = np.array([False, False, True] * 20)  # every third task is won, the others are alike
    assert decided_after(first, second) == 3 * 7 + 1
    assert decided_after(second, first) == 3 * 7 + 1
    assert decided_after(first[: 3 * 7], second[: 3 * 7]) is None
    assert decided_after(first, first) is None


def test_looking_after_every_task_gives_at_most_5_percent_false_alarms():
    """2,000 comparisons of equal rows, each looked at 400 times; McNemar's test so used alarms in more than 20 %."""
    rng = np.random.default_rng(0)
    wins = np.cumsum(rng.random((2000, 400)) < 0.5, axis=1)
    losses = np.arange(1, 401) - wins
    alarms = (e_value(wins, losses) >= 20).any(axis=1).mean()
    assert alarms <= 0.05
    naive = 2 * binom.cdf(np.minimum(wins, losses)[:, 9::10], np.arange(10, 401, 10), 0.5) < 0.05
    assert naive.any(axis=1).mean() > 0.2
