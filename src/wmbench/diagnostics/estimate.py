"""A mean or a ratio of means over episodes or tasks, with its interval."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

NUM_DRAWS = 2000
Values = dict[str, float]  # what a part of diagnostics.json holds


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval."""

    value: float
    low: float
    high: float

    def named(self, name: str) -> Values:
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def ratio(above: Float[ndarray, " n"], below: Float[ndarray, " n"]) -> Estimate:
    """Estimate sum(above) / sum(below) by the percentile bootstrap over the n episodes or tasks, 0 where below is all 0."""
    if len(above) < 2:
        raise ValueError(f"an interval over {len(above)} episodes or tasks is none; give at least 2")
    draws = np.random.default_rng(0).integers(len(above), size=(NUM_DRAWS, len(above)))
    low, high = np.percentile(_quotient(above[draws], below[draws]), [2.5, 97.5])
    return Estimate(float(_quotient(above[None], below[None])[0]), float(low), float(high))


def mean(values: Float[ndarray, " n"]) -> Estimate:
    return ratio(values, np.ones(len(values)))


def _quotient(above: Float[ndarray, "draws n"], below: Float[ndarray, "draws n"]) -> Float[ndarray, " draws"]:
    top, bottom = above.sum(1, dtype=np.float64), below.sum(1, dtype=np.float64)
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0)
