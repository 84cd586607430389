"""Many comparisons at once: adjusted p-values, verdicts with a margin, and letters that tell which rows are separable."""

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from wmbench.evaluation.bootstrap import Estimate

FALSE_ALARMS = 0.05
ENOUGH_SEEDS = 5  # training runs of a row, below which a difference of training recipes is not claimed
MARGIN = 0.03  # below which a difference does not matter: 3 points of success; of a log distance, 3 %

Verdict = Literal["superior", "not inferior", "equivalent", "inferior", "undecided"]


def adjusted(p: Sequence[float] | Float[ndarray, " n"], method: Literal["holm", "fdr_bh"]) -> Float[ndarray, " n"]:
    """p-values for a family: Holm's (no false alarm in it) or Benjamini and Hochberg's (few among those found)."""
    if len(p) == 0:
        return np.zeros(0)
    from statsmodels.stats.multitest import multipletests  # seconds to import

    return np.asarray(multipletests(p, FALSE_ALARMS, method)[1])


def verdict(estimate: Estimate, p: float, margin: int | float) -> Verdict:
    """What a difference says of the first side, where larger is better.

    equivalent: smaller than the margin either way, by two one-sided tests of 5 % (the 90 % interval is within).
    superior, inferior: the adjusted p-value is below 5 %.
    not inferior: not worse by the margin or more (the 95 % interval is above).
    """
    low, high = estimate.interval(1 - 2 * FALSE_ALARMS)
    if -margin < low and high < margin:
        return "equivalent"
    if p < FALSE_ALARMS:
        return "superior" if estimate.value > 0 else "inferior"
    return "not inferior" if estimate.interval(1 - FALSE_ALARMS)[0] > -margin else "undecided"


def letters(rows: Sequence[str], separable: Mapping[tuple[str, str], bool]) -> dict[str, str]:
    """Compact letter display: two rows share a letter if, and only if, they are not separable.

    Insert and absorb (Piepho 2004): each separable pair splits the groups that hold both.

    Args:
        rows: in the order in which letters are given out, best first.
        separable: of each pair of rows, in either order.
    """
    groups = [frozenset(rows)]
    for (first, second), apart in separable.items():
        if apart:
            split = [part for group in groups for part in _without_both(group, first, second)]
            groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    order = {row: place for place, row in enumerate(rows)}
    groups.sort(key=lambda group: sorted(order[row] for row in group))
    return {row: "".join(_letter(place) for place, group in enumerate(groups) if row in group) for row in rows}


def _without_both(group: frozenset[str], first: str, second: str) -> list[frozenset[str]]:
    return [group - {first}, group - {second}] if {first, second} <= group else [group]


def _letter(place: int) -> str:
    """a, b, ... z, a1, b1, ..."""
    return ascii_lowercase[place % 26] + (str(place // 26) if place >= 26 else "")
