"""Success with {true, learned dynamics} x {latent distance, a position probe's}: is it the metric or the dynamics?"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from wmbench.diagnostics.estimate import Values, mean
from wmbench.evaluation.statistics import wilson

# What is gained where one of the two is replaced, the other kept: the first cell minus the second.
EFFECTS = {
    "gain_of_true_dynamics_latent": ("true_latent", "learned_latent"),
    "gain_of_true_dynamics_probe": ("true_probe", "learned_probe"),
    "gain_of_probe_true": ("true_probe", "true_latent"),
    "gain_of_probe_learned": ("learned_probe", "learned_latent"),
}


def two_by_two(solved: Mapping[str, Bool[ndarray, " B"]]) -> Values:
    """Success of each cell with Wilson's interval, and paired differences over the same tasks with a bootstrap interval."""
    values: Values = {}
    for cell, success in solved.items():
        low, high = wilson(int(success.sum()), len(success))
        values |= {f"success_{cell}": float(success.mean()), f"success_{cell}_low": low, f"success_{cell}_high": high}
    for name, (first, second) in EFFECTS.items():
        values |= mean(solved[first].astype(np.float64) - solved[second]).named(name)
    return values
