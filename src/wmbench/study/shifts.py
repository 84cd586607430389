"""What other pictures cost each row: its outcome against its own on clean pictures, paired by training run and task."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from wmbench.envs.appearance import Appearance
from wmbench.evaluation.bootstrap import crossed_bootstrap
from wmbench.evaluation.conditions import Conditions
from wmbench.study.outcomes import Cell, Known, Outcomes, itself

OUTCOME = "success"
LOOKS = {"view.appearance", "view.goal_appearance"}  # conditions in which an evaluation may differ from its clean one
SHIFTS = ["row", "trained_on", "setting", "evaluation", "against", "factors", "s", "goals", "success", "clean"]
SHIFTS += ["difference", "low", "high", "n_seeds", "n_tasks"]
AREAS = ["row", "trained_on", "against", "factors", "goals", "largest_s", "area", "low", "high", "clean", "n_scales"]


@dataclass(frozen=True)
class Look:
    """Pictures of an evaluation: of what the agent sees, and of its goals."""

    seen: Appearance
    goal: Appearance

    @classmethod
    def of(cls, conditions: Conditions) -> "Look | None":
        """None where the actor sees no pictures."""
        if conditions.view is None:
            return None
        seen = conditions.view.get("appearance", "clean")
        return cls(Appearance.of(seen), Appearance.of(conditions.view.get("goal_appearance", seen)))

    @property
    def is_clean(self) -> bool:
        return not (self.seen.names or self.goal.names)

    @property
    def factors(self) -> str:
        """The same at every scale."""
        name, *words = str(self.seen).split()
        return " ".join([name, *words[bool(self.seen.factors) :]])

    @property
    def goals(self) -> str:
        return "as their episode" if self.goal == self.seen else str(self.goal)

    @property
    def kind_of_goals(self) -> str:
        """The same at every scale."""
        return "as their episode" if self.goal == self.seen else str(self.goal).partition(" ")[0]


Looks = Mapping[str, Look]  # of each evaluation


def setting_of(trained_on: str | None, shown: Appearance) -> str:
    """What a row was trained on and what it is shown; settings are not to be mixed in one comparison."""
    trained = Appearance.of(trained_on or "clean")
    if not trained.names:
        return "clean to shifted" if shown.names else "clean to clean"
    if not shown.names:
        return "varied to clean"
    is_inside = set(shown.names) <= set(trained.names) and shown.scale <= trained.scale and not shown.values
    return f"varied to varied, {'in' if is_inside else 'out of'} range"


def looks_of(played: Mapping[Any, Conditions]) -> Looks:
    """The look of each evaluation, which floors play too."""
    return {cell.evaluation: look for cell, one in played.items() if (look := Look.of(one)) is not None}


def shifts_of(table: pd.DataFrame, looks: Looks, trained_on: Mapping[str, str | None], known: Known) -> pd.DataFrame:
    """A line for each row and evaluation of other pictures for which a clean one with the same other settings was played."""
    lines = []
    for row, evaluation, against, cell, clean in _pairs(Outcomes(table, known), looks):
        look, estimate = looks[evaluation], itself(cell, clean)
        figures = cell.values.mean(), clean.values.mean(), estimate.value, *estimate.interval()
        setting = setting_of(trained_on.get(row), look.seen) if row in trained_on else "no training"
        told = row, trained_on.get(row), setting, evaluation, against, look.factors, look.seen.scale, look.goals
        lines.append((*told, *figures, cell.num_seeds, len(cell.tasks)))
    return pd.DataFrame(lines, columns=SHIFTS)


def areas_of(table: pd.DataFrame, looks: Looks, trained_on: Mapping[str, str | None], known: Known) -> pd.DataFrame:
    """Mean success over s, from clean pictures to the largest s played: the area below the curve, in shares of its width."""
    curves: dict[tuple[str, ...], list[tuple[float, Cell, Cell]]] = {}
    for row, evaluation, against, cell, clean in _pairs(Outcomes(table, known), looks):
        look = looks[evaluation]
        curves.setdefault((row, against, look.factors, look.kind_of_goals), []).append((look.seen.scale, cell, clean))
    lines = []
    for (row, against, factors, goals), points in curves.items():
        clean = points[0][2]
        curve = {0.0: clean.values} | {scale: cell.values for scale, cell, _ in sorted(points, key=lambda point: point[0])}
        if len(curve) < 3:
            continue
        scales = np.array(list(curve))
        area = trapezoid(np.stack(list(curve.values())), scales, axis=0) / scales[-1]
        estimate = crossed_bootstrap(area, strata=clean.strata)
        told = row, trained_on.get(row), against, factors, goals, scales[-1]
        lines.append((*told, estimate.value, *estimate.interval(), clean.values.mean(), len(scales)))
    return pd.DataFrame(lines, columns=AREAS)


def _pairs(outcomes: Outcomes, looks: Looks) -> Iterator[tuple[str, str, str, Cell, Cell]]:
    """Rows in evaluations of other pictures and the clean ones to compare with, and what they did in both."""
    for row, evaluation in outcomes.parts:
        cell = outcomes.find(row, evaluation, OUTCOME)
        if cell is None or cell.conditions is None or evaluation not in looks or looks[evaluation].is_clean:
            continue
        for other, look in looks.items():
            clean = outcomes.find(row, other, OUTCOME) if look.is_clean else None
            if clean and clean.conditions and set(cell.conditions.differences(clean.conditions)) <= LOOKS:
                if clean.values.shape == cell.values.shape:  # else some runs are still to be played
                    yield row, evaluation, other, cell, clean
                break
