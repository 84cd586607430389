"""Contrasts: comparisons of two rows that were written down before the study ran, and the verdict on each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from wmbench.evaluation.bootstrap import Estimate
from wmbench.evaluation.multiplicity import ENOUGH_SEEDS, MARGIN, adjusted, verdict
from wmbench.evaluation.statistics import detectable, welch
from wmbench.study.outcomes import NOT_KNOWN, OUTCOMES, SMALLER_IS_BETTER, Cell, Known, Outcomes, change, difference, itself

EXPECTATIONS = {
    "a > b": {"superior": "supported", "inferior": "contradicted", "equivalent": "equivalent"},
    "b > a": {"superior": "contradicted", "inferior": "supported", "equivalent": "equivalent"},
    "a = b": {"superior": "contradicted", "inferior": "contradicted", "equivalent": "supported"},
}

NOTHING = np.zeros((1, 1))  # what a change is compared with: outcomes of one run that is known

COLUMNS = [
    *("name", "a", "b", "evaluation", "b_evaluation", "against", "outcome", "expect", "question"),
    *("difference", "low", "high", "t_low", "t_high", "p", "p_holm", "verdict", "reason", "margin"),
    *("n_seeds_a", "n_seeds_b", "n_tasks", "power"),
]


@dataclass(frozen=True)
class Contrast:
    """An expectation about two rows, as conf/study/*.yaml has it under `contrasts`.

    expect: "a > b" (a plans better, also where a smaller outcome is better), "b > a" or "a = b".
    b_evaluation: of b, where it is not a's: a row compared with itself, such as under two planners, by run and task.
    margin: the largest difference that does not matter, in the outcome's unit; None: the study's.
    against: an evaluation whose outcome is taken off first, by run and task: compared is then what each row loses or gains.
    """

    name: str
    a: str
    b: str
    expect: str
    question: str
    evaluation: str = "closed"
    b_evaluation: str | None = None
    outcome: str = "success"
    margin: int | float | None = None
    against: str | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("expect", self.expect, EXPECTATIONS), ("outcome", self.outcome, OUTCOMES)):
            if value not in known:
                raise ValueError(f"contrast {self.name}: {name} is {value!r}, must be one of: {', '.join(known)}")
        if self.a == self.b and self.b_evaluation in (None, self.evaluation):
            raise ValueError(
                f"contrast {self.name} compares {self.a} with itself; b_evaluation= another evaluation, or b= a row"
            )
        if self.a != self.b and self.b_evaluation is not None:
            raise ValueError(
                f"contrast {self.name}: b_evaluation ({self.b_evaluation}) is for a row and itself, not {self.b}"
            )
        if self.margin is not None and not (isinstance(self.margin, int | float) and self.margin > 0):
            raise ValueError(f"contrast {self.name}: margin ({self.margin}) must be above 0")


def read_contrasts(written: Iterable[Any]) -> list[Contrast]:
    """Contrasts from a study's YAML.

    Raises:
        ValueError: an unknown or missing key, a value that is none of the known ones, or a name given twice.
    """
    known = {field.name: field for field in fields(Contrast)}
    contrasts = []
    for one in written:
        if not isinstance(one, Mapping):
            raise ValueError(f"contrast {one!r} must be a group of settings: name, a, b, expect, question")
        title = f"contrast {one.get('name', len(contrasts) + 1)}"
        if unknown := sorted(set(one) - set(known)):
            raise ValueError(f"{title}: unknown {', '.join(unknown)}; known: {', '.join(known)}")
        if missing := [name for name in ("name", "a", "b", "expect", "question") if name not in one]:
            raise ValueError(f"{title} lacks {', '.join(missing)}")
        contrasts.append(Contrast(**one))
    names = [contrast.name for contrast in contrasts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"contrasts of one name: {', '.join(twice)}; give each its own")
    return contrasts


def judge(
    contrasts: Sequence[Contrast], table: pd.DataFrame, margin: int | float = MARGIN, conditions: Known = NOT_KNOWN
) -> pd.DataFrame:
    """contrasts.csv: each contrast's difference, intervals, p-values, verdict and what could have been found.

    All contrasts that can be claimed are one family, with a chance of at most 5 % of any false alarm in it (Holm).
    """
    outcomes = Outcomes(table, conditions)
    lines, estimates = [], {}
    for contrast in contrasts:
        line: dict[str, Any] = {field.name: getattr(contrast, field.name) for field in fields(Contrast)}
        line["margin"] = margin if contrast.margin is None else contrast.margin
        try:
            a, b = _compared(outcomes, contrast)
            estimates[len(lines)] = itself(a, b) if contrast.b_evaluation else difference(a, b)
            alone = (change(a, b).values, NOTHING) if contrast.b_evaluation else (a.values, b.values)
            t_low, t_high = welch(*(values.mean(axis=1) for values in alone)) or (np.nan, np.nan)
            line |= {"t_low": t_low, "t_high": t_high} | _figures(estimates[len(lines)], a, b, contrast.outcome)
        except ValueError as error:
            line |= {"verdict": "untested", "reason": str(error)}
        lines.append(line)

    family = [place for place, line in enumerate(lines) if "verdict" not in line]
    for place, p in zip(family, adjusted([lines[place]["p"] for place in family], "holm"), strict=True):
        contrast, line = contrasts[place], lines[place]
        better = -estimates[place] if contrast.outcome in SMALLER_IS_BETTER else estimates[place]
        word = EXPECTATIONS[contrast.expect].get(verdict(better, p, line["margin"]), "undecided")
        line |= {"p_holm": p, "verdict": word}
    return pd.DataFrame(lines, columns=COLUMNS).astype(dict.fromkeys(("n_seeds_a", "n_seeds_b", "n_tasks"), "Int64"))


def _compared(outcomes: Outcomes, contrast: Contrast) -> list[Cell]:
    sides = (contrast.a, contrast.evaluation), (contrast.b, contrast.b_evaluation or contrast.evaluation)
    cells = [outcomes.cell(row, evaluation, contrast.outcome) for row, evaluation in sides]
    if not contrast.against:
        return cells
    before = [outcomes.cell(row, contrast.against, contrast.outcome) for row, _ in sides]
    return [change(cell, other) for cell, other in zip(cells, before, strict=True)]


def _figures(estimate: Estimate, a: Cell, b: Cell, outcome: str) -> dict[str, Any]:
    low, high = estimate.interval()
    figures = {
        "difference": estimate.value,
        "low": low,
        "high": high,
        "p": estimate.p,
        "n_seeds_a": a.num_seeds,
        "n_seeds_b": b.num_seeds,
        "n_tasks": len(a.tasks),
        "power": power_sentence(estimate, a, b, outcome),
    }
    if not (a.claims and b.claims):
        fewest = min(cell.num_seeds for cell in (a, b) if not cell.claims)
        figures |= {"verdict": "no claim", "reason": f"{fewest} training runs, at least {ENOUGH_SEEDS} are needed"}
    return figures


def power_sentence(estimate: Estimate, a: Cell, b: Cell, outcome: str) -> str:
    """`with 5 seeds and 200 tasks, differences of about 9 points are detectable (80% power, two-sided 5%)`."""
    seeds = sorted({cell.num_seeds for cell in (a, b) if cell.num_seeds})
    runs = [f"{' or '.join(map(str, seeds))} seed{'s' if seeds != [1] else ''}"] if seeds else []
    counts = " and ".join([*runs, f"{len(a.tasks)} tasks"])
    size = detectable(estimate.variances, estimate.freedoms)
    units = {"final_distance": f"{size:.2g} m", "log_final_distance": f"a factor of {np.exp(size):.2f}"}
    words = f"differences of about {units.get(outcome, f'{100 * size:.{1 if size < 0.1 else 0}f} points')} are detectable"
    if outcome not in units and size > 1:  # more than all points
        words = "nothing is surely detectable"
    return f"with {counts}, {words} (80% power, two-sided 5%)"
