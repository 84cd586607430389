"""What whole paths tell: first touch at several radii and within two budgets, hold, and detour."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from wmbench.evaluation.statistics import wilson

RADII = (0.5, 0.25, 0.1)  # [m], strict, as in is_success
PROPORTIONS = ("success_0.25", "success_0.1", "held", "success_short")
NAMES = [f"{name}{end}" for name in (*PROPORTIONS, "spl", "steps", "final_distance") for end in ("", "_low", "_high")]


def score_paths(
    states: Float[ndarray, "n steps 4"], goal: Float[ndarray, "n 4"], geodesic: Float[ndarray, " n"], short_steps: int | None
) -> dict[str, ndarray]:
    """Scores of each task, named as the columns of tasks.csv.

    success_0.25, success_0.1: the ball came within that many metres of its goal, at the end of any env step.
    held: it is within 0.5 m of the goal after the last env step.
    success_short: it came within 0.5 m in the first short_steps env steps.
    spl: success weighted by path length (Anderson et al. 2018): of a touch at 0.5 m the share that the shortest way to the
        goal has of max(that way, the way rolled until the touch); 0 without one.

    Args:
        states: from the start on, T + 1 of them.
        geodesic: length of the shortest way from start to goal [m].
    """
    distance = np.linalg.norm(states[..., :2] - goal[:, None, :2], axis=-1)
    touched, step = first_touch(distance, RADII[0])
    rolled = np.linalg.norm(np.diff(states[..., :2], axis=1), axis=-1).cumsum(1)
    way = np.maximum(np.take_along_axis(rolled, np.maximum(step - 1, 0)[:, None], 1)[:, 0], geodesic)
    scores = {f"success_{radius}": first_touch(distance, radius)[0] for radius in RADII[1:]}
    scores["held"] = distance[:, -1] < RADII[0]
    scores["spl"] = np.where(touched, geodesic / way, 0.0)
    if short_steps is not None:
        scores["success_short"] = touched & (step <= short_steps)
    return scores


def first_touch(distance: Float[ndarray, "n steps"], radius: int | float) -> tuple[Bool[ndarray, " n"], Int[ndarray, " n"]]:
    """Whether each path (T + 1 distances [m] to its goal, from the start on) comes near, and after which env step."""
    near = distance[:, 1:] < radius
    touched = np.asarray(near.any(1))
    return touched, np.where(touched, near.argmax(1) + 1, near.shape[1])


def summarise(columns: Mapping[str, ndarray]) -> dict[str, float | None]:
    """Mean of each score over tasks, with its 95% interval as NAME_low and NAME_high.

    Wilson's for proportions; Student's over tasks for means, cut where no mean can lie, and None for a single task.
    """
    found: dict[str, float | None] = {}
    for name, values in columns.items():
        interval = wilson(int(values.sum()), len(values)) if name in PROPORTIONS else _of_mean(name, values)
        found |= dict(zip((name, f"{name}_low", f"{name}_high"), (float(values.mean()), *interval), strict=True))
    return found


def _of_mean(name: str, values: ndarray) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    from scipy.stats import sem, t  # a second to import, which commands that print no result need not wait for

    half = t.ppf(0.975, len(values) - 1) * sem(values)
    return max(float(values.mean() - half), 0.0), min(float(values.mean() + half), 1.0 if name == "spl" else np.inf)
