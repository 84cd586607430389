"""Intervals and tests, so that only differences one can believe are printed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from wmbench.evaluation.bootstrap import welch_freedom


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion."""
    from scipy.stats import binomtest  # a second to import, which commands that print no result need not wait for

    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(first: Bool[ndarray, " n"], second: Bool[ndarray, " n"]) -> float:
    """Two-sided p-value that two rows solve the same tasks equally often: McNemar's exact test on the discordant ones."""
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    if only_first + only_second == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second).pvalue)


def welch(first: Float[ndarray, " A"], second: Float[ndarray, " B"], confidence: float = 0.95) -> tuple[float, float] | None:
    """Welch's t interval for the difference of the means over training runs, on these very tasks.

    None where runs tell no spread: one run on each side, or all alike. A side of one run (a floor) counts as known.
    """
    if (len(first) < 2 and len(second) < 2) or np.ptp(first) + np.ptp(second) < 1e-12:
        return None
    from scipy.stats import t

    variances = [float(runs.var(ddof=1)) / len(runs) if len(runs) > 1 else 0.0 for runs in (first, second)]
    freedom = welch_freedom(variances, [len(first) - 1, len(second) - 1])
    half = t.ppf((1 + confidence) / 2, freedom) * np.sqrt(sum(variances))
    difference = first.mean() - second.mean()
    return float(difference - half), float(difference + half)


def detectable(
    variances: Sequence[int | float], freedoms: Sequence[int | float], *, power: float = 0.8, false_alarms: float = 0.05
) -> float:
    """True difference that a two-sided t-test finds with this power.

    Args:
        variances: independent parts of the difference's squared standard error: SD^2 / S of each side's S training runs,
            and for T tasks the variance of a task's difference / T (at most the share of discordant tasks / T).
        freedoms: degrees of freedom of each part: S - 1, T - 1.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm, t

    freedom = welch_freedom(variances, freedoms)
    # The noncentral t by the estimated standard errors it may meet: scipy's own is NaN where freedoms are few.
    errors = np.sqrt(chi2.ppf((np.arange(2000) + 0.5) / 2000, freedom) / freedom)
    border = t.ppf(1 - false_alarms / 2, freedom) * errors

    def missing(effect: float) -> float:
        return power - float((norm.sf(border - effect) + norm.cdf(-border - effect)).mean())

    effect = np.asarray(brentq(missing, 0, 10 * border.max()))  # in standard errors
    return float(effect * np.sqrt(sum(variances)))


def e_value(wins: Int[ndarray, "*n"] | int, losses: Int[ndarray, "*n"] | int) -> Float[ndarray, "*n"] | float:
    """Evidence against "a task that only one row solves is solved by either equally often"; 1 is none.

    The ratio of two likelihoods of the wins seen: with every rate of winning equally likely before, and with a rate of 1/2.
    It may be looked at after every task: it ever reaches 20 with a probability of at most 1/20 where rows are equal
    (Ville's inequality). E-values of independent pairs of training runs multiply.
    """
    from scipy.special import betaln

    return np.exp((wins + losses) * np.log(2) + betaln(1 + wins, 1 + losses))


def decided_after(first: Bool[ndarray, " n"], second: Bool[ndarray, " n"], threshold: float = 20) -> int | None:
    """Number of tasks, in their order, after which the e-value has reached the threshold; None if it never does.

    It tells two trained models apart, not two encoders: for these, training runs differ as well.
    """
    evidence = e_value(np.cumsum(first & ~second), np.cumsum(~first & second))
    reached = np.flatnonzero(evidence >= threshold)
    return int(reached[0]) + 1 if len(reached) else None
