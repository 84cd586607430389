"""Intervals and tests, so that only differences one can believe are printed."""

from jaxtyping import Bool
from numpy import ndarray


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
