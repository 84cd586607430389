"""Families of comparisons: adjusted p-values worked by hand, letters against their definition, verdicts at their borders."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, norm

from wmbench.evaluation.bootstrap import Estimate
from wmbench.evaluation.multiplicity import adjusted, letters, verdict


def test_holm_multiplies_the_smallest_p_by_all_and_the_next_by_one_less():
    """Holm (1979): 0.01, 0.02, 0.03, 0.005 times 3, 2, 1 and 4, none below a smaller one's."""
    assert adjusted([0.01, 0.02, 0.03, 0.005], "holm") == pytest.approx([0.03, 0.04, 0.04, 0.02])


def test_benjamini_and_hochberg_give_their_own_example():
    """Benjamini and Hochberg (1995), 15 hypotheses of a heart study: four are found at 5 %, where Bonferroni finds three."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    found = adjusted(p, "fdr_bh")
    assert (found < 0.05).sum() == 4
    assert found == pytest.approx(false_discovery_control(p))


def test_a_family_without_members_has_no_p_values():
    assert len(adjusted([], "holm")) == 0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("number", [1, 2, 5, 8])
def test_rows_share_a_letter_if_and_only_if_they_are_not_separable(number: int, share: float):
    rng = np.random.default_rng(number)
    rows = [f"row {k}" for k in range(number)]
    for _ in range(20):
        separable = {pair: bool(rng.random() < share) for pair in combinations(rows, 2)}
        shown = letters(rows, separable)
        assert all(shown.values())
        assert all(bool(set(shown[a]) & set(shown[b])) != apart for (a, b), apart in separable.items())


def test_letters_of_ordered_means_are_those_of_a_textbook():
    """Means 10, 9, 7, 4 with a least significant difference of 2.5: the classical display a, ab, b, c."""
    means = {"w": 10, "x": 9, "y": 7, "z": 4}
    separable = {(a, b): abs(means[a] - means[b]) > 2.5 for a, b in combinations(means, 2)}
    assert letters(list(means), separable) == {"w": "a", "x": "ab", "y": "b", "z": "c"}


def test_no_letter_is_given_that_another_makes_needless():
    rows = ["p", "q", "r"]
    assert letters(rows, {("p", "q"): False, ("p", "r"): False, ("q", "r"): False}) == dict.fromkeys(rows, "a")
    assert letters(rows, {("r", "p"): True}) == {"p": "a", "q": "ab", "r": "b"}


def known(value: float, error: float) -> Estimate:
    """An estimate whose replicates are normal."""
    return Estimate(value, value + error * norm.ppf((np.arange(1999) + 0.5) / 1999), (error**2,), (np.inf,))


@pytest.mark.parametrize(
    ("value", "error", "word"),
    [
        (0.10, 0.02, "superior"),
        (-0.10, 0.02, "inferior"),
        (0.00, 0.01, "equivalent"),
        (0.012, 0.005, "equivalent"),  # clear of 0, but smaller than what matters
        (0.03, 0.02, "not inferior"),
        (0.00, 0.10, "undecided"),
        (-0.03, 0.02, "undecided"),
        (0.00, 0.0175, "equivalent"),  # 1.645 errors are within 3 points, 1.96 are not
        (0.00, 0.0190, "undecided"),
    ],
)
def test_a_verdict_weighs_the_interval_against_0_and_the_margin(value: float, error: float, word: str):
    estimate = known(value, error)
    assert verdict(estimate, estimate.p, margin=0.03) == word


def test_superiority_follows_the_adjusted_p_value():
    estimate = known(0.10, 0.04)
    assert verdict(estimate, estimate.p, margin=0.03) == "superior"
    assert verdict(estimate, 0.2, margin=0.03) == "not inferior"
