"""Intervals and tests against closed forms, published numbers and tables worked by hand."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import norm

from wmbench.evaluation.statistics import mcnemar, wilson


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
