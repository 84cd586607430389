"""Crossed bootstrap: how far a row's mean, or the difference of two rows, would move with other training runs and tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference, and what it could have been with other training runs and other tasks.

    variances, freedoms: squared standard errors that come from the training runs of each side and from the tasks, with the
        degrees of freedom that each was measured with.
    """

    value: float
    replicates: Float[ndarray, " R"]
    variances: tuple[float, ...]
    freedoms: tuple[float, ...]

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Percentiles of the replicates; the value is always inside."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.replicates, [tail, 1 - tail])
        return min(float(low), self.value), max(float(high), self.value)

    def __neg__(self) -> "Estimate":
        return Estimate(-self.value, -self.replicates, self.variances, self.freedoms)

    @property
    def p(self) -> float:
        """Two-sided p-value of no difference: the share of replicates on the other side of 0, twice; never 0."""
        other_side = min((self.replicates <= 0).sum(), (self.replicates >= 0).sum())
        return min(1.0, float(2 * (1 + other_side) / (1 + len(self.replicates))))


@dataclass(frozen=True)
class Side:
    """Outcomes of one row, of each training run on each task."""

    outcomes: Float[ndarray, "S T"]

    @property
    def constant(self) -> float | None:
        """0 or 1 where every run failed, or solved, every task."""
        first = float(self.outcomes.flat[0])
        return first if first in (0.0, 1.0) and bool((self.outcomes == first).all()) else None

    @property
    def run_means(self) -> Float[ndarray, " S"]:
        return self.outcomes.mean(axis=1)

    @property
    def observed_variance(self) -> float:
        """Variance of the mean over runs on these tasks, noise of single outcomes included."""
        return float(self.run_means.var(ddof=1)) / len(self.outcomes) if len(self.outcomes) > 1 else 0.0

    @property
    def variance(self) -> float:
        """Variance of the mean over runs, without the noise of single outcomes, which the draws of tasks hold already."""
        num_runs, num_tasks = self.outcomes.shape
        if num_runs == 1 or num_tasks == 1:
            return self.observed_variance
        additive = self.run_means[:, None] + self.outcomes.mean(axis=0) - self.outcomes.mean()
        noise = float(((self.outcomes - additive) ** 2).sum()) / ((num_runs - 1) * (num_tasks - 1))
        return max(0.0, self.observed_variance - noise / self.outcomes.size)

    def draw(self, replicates: int, rng: np.random.Generator) -> Float[ndarray, " R"]:
        """Deviations of the mean when runs are drawn with replacement, scaled to have the variance above."""
        number = len(self.outcomes)
        if self.variance == 0:
            return np.zeros(replicates)
        counts = rng.multinomial(number, np.full(number, 1 / number), size=replicates)
        drawn = (counts - 1) / number @ self.run_means
        return drawn * np.sqrt(number / (number - 1) * self.variance / self.observed_variance)


def crossed_bootstrap(
    a: Float[ndarray, "A T"],
    b: Float[ndarray, "B T"] | None = None,
    strata: Sequence[int] | None = None,
    *,
    replicates: int = 10_000,
    seed: int = 0,
    are_changes: bool = False,
) -> Estimate:
    """Mean of a, or mean of a minus mean of b, over training runs and tasks, both drawn anew in every replicate.

    Tasks are drawn within their strata, the same for both sides (the outcomes are paired); training runs independently.
    With few runs such draws vary too little, since the mean of S runs takes up one of S degrees of freedom: deviations of
    runs are scaled by sqrt(S / (S - 1)), and by a random factor that turns their normal distribution into Student's t of
    Welch's degrees of freedom (docs/statistics.md tells how often the interval is right).

    A side of a single run (a floor, the simulator) varies with the tasks only. Where all outcomes of a side are 0 or all 1,
    nothing varies: its mean is drawn from Jeffreys' posterior of a proportion of T tasks. Where no outcome changed, tasks
    that were not played may have changed both ways.

    Args:
        strata: the stratum of each task; None if they are all of one.
        are_changes: outcomes are differences of two shares, from -1 to 1, and not shares.
    """
    num_tasks = a.shape[1]
    signs = {1.0: Side(a)} | ({} if b is None else {-1.0: Side(b)})
    rng = np.random.default_rng([seed, 1])  # not the tasks' stream

    by_task = np.sum([sign * side.outcomes.mean(axis=0) for sign, side in signs.items()], axis=0)
    from_tasks = _task_deviations(tuple(strata if strata is not None else [0] * num_tasks), replicates, seed) @ by_task
    for sign, side in signs.items():
        if side.constant is not None:
            is_open = are_changes and side.constant == 0
            way = rng.choice((-1, 1), replicates) if is_open else sign * (1 - 2 * side.constant)
            from_tasks = from_tasks + way * rng.beta(0.5, num_tasks + 0.5, replicates)

    from_runs = sum(sign * side.draw(replicates, rng) for sign, side in signs.items())
    freedom = welch_freedom(
        [side.observed_variance for side in signs.values()], [len(side.outcomes) - 1 for side in signs.values()]
    )
    from_runs = from_runs * np.sqrt(freedom / rng.chisquare(freedom, replicates))
    value = float(by_task.mean())
    variances = *(side.variance for side in signs.values()), float(from_tasks.var())
    freedoms = *(float(len(side.outcomes) - 1) for side in signs.values()), float(num_tasks - 1)
    return Estimate(value, value + from_tasks + from_runs, variances, freedoms)


def welch_freedom(variances: Sequence[int | float], freedoms: Sequence[int | float]) -> float:
    """Degrees of freedom of a sum of estimated variances (Welch and Satterthwaite); 1 where nothing varies."""
    spread = sum(variance**2 / freedom for variance, freedom in zip(variances, freedoms, strict=True) if variance > 0)
    return sum(variances) ** 2 / spread if spread > 0 else 1.0


@lru_cache(maxsize=2)  # all rows of a study have the same tasks; drawing takes longer than all the rest
def _task_deviations(strata: tuple[int, ...], replicates: int, seed: int) -> Float[ndarray, "R T"]:
    """How much more than its share a task weighs in each replicate; like runs, the few tasks of a stratum are corrected."""
    rng = np.random.default_rng(seed)
    labels = np.array(strata)
    deviations = np.zeros((replicates, len(labels)))
    for stratum in np.unique(labels):
        members = np.flatnonzero(labels == stratum)
        number = len(members)
        counts = rng.multinomial(number, np.full(number, 1 / number), size=replicates)
        deviations[:, members] = (counts - 1) / len(labels) * np.sqrt(number / max(1, number - 1))
    return deviations
