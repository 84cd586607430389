"""Outcomes of a study's tasks (outcomes.csv) by row, and what they say of each row and of all pairs of rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from wmbench.evaluation.bootstrap import Estimate, crossed_bootstrap
from wmbench.evaluation.conditions import Conditions
from wmbench.evaluation.multiplicity import ENOUGH_SEEDS, FALSE_ALARMS, adjusted, letters

SMALLER_IS_BETTER = ("final_distance", "log_final_distance")
OUTCOMES = ("success", "success_0.25", "success_0.1", "success_short", "held", "spl", *SMALLER_IS_BETTER)
SUMMARY = ("row", "evaluation", "outcome", "radius", "success", "success_low", "success_high", "n_seeds", "n_tasks")
RADII = {"success": 0.5, "success_0.25": 0.25, "success_0.1": 0.1, "success_short": 0.5, "held": 0.5}  # [m]
NEAREST = 0.01  # [m]; on the log scale nothing is nearer to its goal

Known = Mapping[str, Conditions]  # by their hash, which is what outcomes.csv has
NOT_KNOWN: Known = {}


@dataclass(frozen=True)
class Cell:
    """One outcome of a row in one evaluation: of S training runs, or of the one play of a row that is not trained.

    conditions: of all its results; None where only their hash is known.
    is_change: values are differences of two outcomes.
    """

    values: Float[ndarray, "S T"]
    tasks: pd.DataFrame
    num_seeds: int
    conditions: Conditions | None = None
    is_change: bool = False

    @property
    def strata(self) -> list[int]:
        return self.tasks["stratum"].tolist()

    @property
    def claims(self) -> bool:
        """Whether enough training runs were made; a row that is not trained, such as the simulator, needs none."""
        return self.num_seeds == 0 or self.num_seeds >= ENOUGH_SEEDS


class Outcomes:
    """outcomes.csv with its rows at hand."""

    def __init__(self, table: pd.DataFrame, conditions: Known = NOT_KNOWN):
        self.conditions = conditions
        places: Any = table.groupby(["row", "evaluation"]).indices
        self.parts: dict[tuple[str, str], pd.DataFrame] = {key: table.iloc[where] for key, where in places.items()}

    def cell(self, row: str, evaluation: str, outcome: str = "success") -> Cell:
        """Raises:
        ValueError: the row was not evaluated so, lacks the outcome, or its runs did not all play the same tasks once.
        """
        if (row, evaluation) not in self.parts:
            names = ", ".join(sorted(name for other, name in self.parts if other == row))
            raise ValueError(f"{row} has no outcomes in evaluation {evaluation}; it has: {names or 'none'}")
        part = self.parts[row, evaluation].sort_values(["seed", "task"])
        values = measured(part, outcome)
        if values is None or np.isnan(values).any():
            raise ValueError(f"{outcome} was not measured for {row} in evaluation {evaluation}")
        if len(several := sorted(set(part["conditions"]))) > 1:
            known = [self.conditions[hash_] for hash_ in several if hash_ in self.conditions]
            how = told_apart(*known[:2]) if len(known) > 1 else ", ".join(several)
            raise ValueError(f"{row} has results of several conditions in evaluation {evaluation}: {how}")
        num_seeds, tasks = len(set(part["seed"].dropna())), part["task"].to_numpy()
        num_tasks, num_runs = len(set(tasks)), max(1, num_seeds)
        if len(tasks) != num_runs * num_tasks or (tasks.reshape(num_runs, num_tasks) != np.unique(tasks)).any():
            raise ValueError(f"training runs of {row} have not all played the same tasks of evaluation {evaluation} once")
        known = part.iloc[:num_tasks][["task", "stratum", "geodesic"]].fillna({"stratum": 0})
        conditions = self.conditions.get(part["conditions"].iloc[0])
        return Cell(values.reshape(num_runs, num_tasks), known.reset_index(drop=True), num_seeds, conditions)

    def find(self, row: str, evaluation: str, outcome: str) -> Cell | None:
        """The cell, if there is one; `problems` tells why a row has none."""
        try:
            return self.cell(row, evaluation, outcome)
        except ValueError:
            return None

    def problems(self) -> list[str]:
        """What keeps a row out of every table: its runs played other tasks or under other conditions than each other."""
        found = []
        for row, evaluation in self.parts:
            try:
                self.cell(row, evaluation)
            except ValueError as error:
                found.append(str(error))
        return found


def measured(part: pd.DataFrame, outcome: str) -> Float[ndarray, " n"] | None:
    """The outcome of each line; None where the table lacks it, or has it of no line."""
    column = "final_distance" if outcome == "log_final_distance" else outcome
    if column not in part:
        return None
    values = part[column].to_numpy(float)
    if np.isnan(values).all():
        return None
    return np.log(np.maximum(values, NEAREST)) if outcome == "log_final_distance" else values


def told_apart(a: Conditions | None, b: Conditions | None) -> str:
    """`max_steps 50 / 60`: settings that reach both actors and differ."""
    differences = a.differences(b) if a and b else {}
    return ", ".join(f"{name} {mine} / {other}" for name, (mine, other) in differences.items())


def obstacle(a: Cell, b: Cell) -> str | None:
    """Why two cells cannot be compared."""
    if not a.tasks.equals(b.tasks):
        return "they did not play the same tasks"
    apart = told_apart(a.conditions, b.conditions)
    return f"they did not play under the same conditions: {apart}" if apart else None


def difference(a: Cell, b: Cell) -> Estimate:
    """a minus b, paired by task.

    Raises:
        ValueError: other tasks or conditions.
    """
    if reason := obstacle(a, b):
        raise ValueError(reason)
    return crossed_bootstrap(a.values, b.values, a.strata, are_changes=a.is_change)


def change(now: Cell, before: Cell) -> Cell:
    """How much larger an outcome is than in another evaluation, of each run on each task.

    Raises:
        ValueError: they have other runs or tasks.
    """
    if now.values.shape != before.values.shape or not now.tasks.equals(before.tasks):
        raise ValueError("the two evaluations were not played by the same runs on the same tasks")
    return replace(now, values=now.values - before.values, is_change=True)


def itself(a: Cell, b: Cell) -> Estimate:
    """a minus b of one row's runs in two evaluations, paired by run and task.

    Raises:
        ValueError: they have other runs or tasks.
    """
    return crossed_bootstrap(change(a, b).values, strata=a.strata, are_changes=True)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each row, evaluation and outcome, with its interval over training runs and tasks: the body of table.csv."""
    return pd.DataFrame(_summaries(Outcomes(table)), columns=[*SUMMARY])


def _summaries(outcomes: Outcomes) -> Iterator[dict[str, object]]:
    for row, evaluation in outcomes.parts:
        for outcome in OUTCOMES:
            cell = outcomes.find(row, evaluation, outcome)
            if cell is None:  # such as one that is no outcome of this protocol
                continue
            estimate = crossed_bootstrap(cell.values, strata=cell.strata)
            low, high = estimate.interval()
            if outcome != "log_final_distance":
                low = max(0.0, low)
            if outcome not in SMALLER_IS_BETTER:  # a share
                high = min(1.0, high)
            yield {
                "row": row,
                "evaluation": evaluation,
                "outcome": outcome,
                "radius": RADII.get(outcome),
                "success": estimate.value,
                "success_low": low,
                "success_high": high,
                "n_seeds": cell.num_seeds,
                "n_tasks": len(cell.tasks),
            }


def all_pairs(
    table: pd.DataFrame, evaluation: str, outcome: str = "success", conditions: Known = NOT_KNOWN
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Every pair of rows of an evaluation, the better one first, for exploring; and the letters of its rows, best first.

    Rows that share a letter are not separable. p_bh keeps the share of false alarms among the pairs found below 5 %
    (Benjamini and Hochberg). Left out are rows with too few training runs, and those that cannot be compared with most.
    """
    outcomes = Outcomes(table, conditions)
    found = {row: outcomes.find(row, evaluation, outcome) for row, name in outcomes.parts if name == evaluation}
    cells = _comparable({row: cell for row, cell in found.items() if cell is not None and cell.claims})
    sign = 1 if outcome in SMALLER_IS_BETTER else -1
    rows = sorted(cells, key=lambda row: sign * cells[row].values.mean())
    pairs = list(combinations(rows, 2))
    estimates = [difference(cells[first], cells[second]) for first, second in pairs]
    p_bh = adjusted([estimate.p for estimate in estimates], "fdr_bh")
    intervals = [estimate.interval() for estimate in estimates]
    columns = {"a": [first for first, _ in pairs], "b": [second for _, second in pairs]}
    columns |= {"difference": [estimate.value for estimate in estimates]}
    columns |= {"low": [low for low, _ in intervals], "high": [high for _, high in intervals]}
    columns |= {"p": [estimate.p for estimate in estimates], "p_bh": p_bh}
    return pd.DataFrame(columns), letters(rows, dict(zip(pairs, (p_bh < FALSE_ALARMS).tolist(), strict=True)))


def _comparable(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Cells that played the same tasks under the same conditions as the row that has most of them."""
    groups = [{row: cell for row, cell in cells.items() if obstacle(first, cell) is None} for first in cells.values()]
    return max(groups, key=len, default={})


def planning_gaps(
    table: pd.DataFrame, outcome: str = "success", ceiling: str = "simulator", conditions: Known = NOT_KNOWN
) -> pd.DataFrame:
    """How much better the ceiling does than each row: what true dynamics and distances would add, with the same planner.

    A gap whose interval is clear of 0 is the model's; what the ceiling itself leaves is the planner's.
    """
    outcomes, gaps = Outcomes(table, conditions), []
    for row, evaluation in outcomes.parts:
        best, cell = (outcomes.find(name, evaluation, outcome) for name in (ceiling, row))
        if row != ceiling and best is not None and cell is not None and obstacle(best, cell) is None:
            gap = difference(best, cell)
            low, high = gap.interval()
            gaps.append((row, evaluation, outcome, gap.value, low, high))
    return pd.DataFrame(gaps, columns=["row", "evaluation", "outcome", "gap", "gap_low", "gap_high"])
