"""Whether what is imagined orders plans as what happens does."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def spearman(a: Float[ndarray, "*B n"], b: Float[ndarray, "*B n"]) -> Float[ndarray, "*B"]:
    """Rank correlation of each row; 0 where a row is constant, which orders nothing."""
    from scipy.stats import rankdata

    first, second = (ranks - ranks.mean(-1, keepdims=True) for ranks in (rankdata(a, axis=-1), rankdata(b, axis=-1)))
    size = np.sqrt(np.square(first).sum(-1) * np.square(second).sum(-1))
    return np.asarray((first * second).sum(-1) / np.where(size > 0, size, 1))


def regret(imagined: Float[ndarray, "B S"], truth: Float[ndarray, "B S"]) -> Float[ndarray, " B"]:
    """How much more the plan of the lowest imagined cost truly costs than the best of the S plans."""
    chosen = np.take_along_axis(truth, imagined.argmin(1)[:, None], 1)[:, 0]
    return chosen - truth.min(1)
