"""Success against distance, budget, radius and compute: the csv files behind these parts of a study's report."""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray

from wmbench.evaluation.bootstrap import crossed_bootstrap
from wmbench.evaluation.row import BASELINES
from wmbench.reports.document import Bar, Cell, Frame, Picture, Section, Sheet, Table
from wmbench.reports.study_figures import draw_against, draw_curves
from wmbench.reports.study_files import Study
from wmbench.reports.study_results import outcome_cell

NUM_BINS, NUM_STEPS, REPLICATES = 5, 21, 2000
COLUMNS = ["row", "evaluation", "x", "success", "low", "high", "n_tasks"]
POINT = ("success", "low", "high")
COSTS = ("seconds_per_decision", "evaluations_per_plan")
ORDINALS = ("nearest", "second", "third", "fourth", "fifth", "sixth")  # strata; a table has eight columns at most
BAND = (
    "The band is the 95% interval over seeds and tasks; grey lines are the other rows, dashed the simulator, dotted random "
    "actions."
)


def _by_seed(part: Frame, values: Frame) -> tuple[Float[ndarray, "S T"], list[int]]:
    """Values of the tasks that every seed of a row has played, and the tasks' strata."""
    known = part.assign(seed=part["seed"].fillna(-1), value=values.astype(float))
    table = known.pivot(index="seed", columns="task", values="value").dropna(axis=1)
    strata = part.drop_duplicates("task").set_index("task")["stratum"].fillna(0).reindex(table.columns)
    return table.to_numpy(float), strata.astype(int).tolist()


def _point_of(values: Float[ndarray, "S T"] | Bool[ndarray, "S T"], strata: list[int]) -> list[float]:
    """Mean, and its 95% interval over seeds and tasks, cut to what a share can be."""
    estimate = crossed_bootstrap(values.astype(float), strata=strata, replicates=REPLICATES)
    low, high = estimate.interval()
    return [estimate.value, max(low, 0.0), min(high, 1.0)]


def distance_sheet(outcomes: Frame) -> Sheet:
    """Success by the length of the shortest path, in fifths of the tasks. x: the mean length in the fifth [m]."""
    edges = np.quantile(outcomes["geodesic"], np.linspace(0, 1, NUM_BINS + 1)[1:-1])
    bins = np.searchsorted(edges, outcomes["geodesic"])
    rows = [
        [row, evaluation, part["geodesic"].mean(), *_point_of(*_by_seed(part, part["success"])), part["task"].nunique()]
        for (_, row, evaluation), part in outcomes.groupby([bins, "row", "evaluation"])
    ]
    frame: Frame = pd.DataFrame(rows, columns=COLUMNS)
    return Sheet("distance.csv", frame.sort_values(["evaluation", "row", "x"], ignore_index=True))


def budget_sheet(outcomes: Frame) -> Sheet:
    """Success by each env step. x: the step."""
    steps = np.unique(np.linspace(0, outcomes["steps"].max(), NUM_STEPS).round())
    rows = []
    for (row, evaluation), part in outcomes.groupby(["row", "evaluation"], sort=False):
        touched, strata = _by_seed(part, part["steps"].where(part["success"], np.inf))
        rows += [[row, evaluation, step, *_point_of(touched <= step, strata), touched.shape[1]] for step in steps]
    return Sheet("budget.csv", pd.DataFrame(rows, columns=COLUMNS))


def strata_sheet(outcomes: Frame) -> Sheet:
    """Success by the tasks' strata, nearest first."""
    near_first = outcomes.groupby("stratum")["geodesic"].mean().sort_values().index
    rows = [
        [row, evaluation, stratum, *_point_of(*_by_seed(part, part["success"])), part["task"].nunique()]
        for stratum in near_first
        for (row, evaluation), part in outcomes[outcomes["stratum"] == stratum].groupby(["row", "evaluation"], sort=False)
    ]
    return Sheet("strata.csv", pd.DataFrame(rows, columns=["row", "evaluation", "stratum", *COLUMNS[3:]]))


def compute_sheet(study: Study) -> Sheet:
    """What a row costs: parameters, and means over its seeds of what planning took; floors plan nothing."""
    names = ["parameters", "success", "success_low", "success_high", *COSTS]
    rows = []
    for evaluation in study.evaluations:
        for row in study.rows(evaluation):
            if (index := study.find(row, evaluation)) is not None:
                found = {name: study.table.value(index, name) for name in names}
                took = {name: found[name] or None for name in COSTS}
                rows.append({"row": row, "evaluation": evaluation} | found | took)
    return Sheet("compute.csv", pd.DataFrame(rows, columns=["row", "evaluation", *names]))


def curves(study: Study, pictures: Path) -> tuple[list[Section], list[Sheet]]:
    """The parts on distance and strata, budget and radii; and compute."""
    outcomes = study.outcomes.frame
    sections, sheets = [_radii(study)], []
    if {"geodesic", "steps", "stratum"} <= set(outcomes.columns) and len(outcomes):
        by_distance, by_step = distance_sheet(outcomes), budget_sheet(outcomes)
        sheets += [by_distance, by_step]
        section = Section("How far can it go?")
        section.blocks += _pictures(study, by_distance, pictures, "distance", "shortest path to the goal [m]")
        if outcomes["stratum"].notna().all():
            strata = strata_sheet(outcomes)
            sheets.append(strata)
            section.blocks += [_strata_table(study, strata, evaluation) for evaluation in study.evaluations]
        later = Section("How long does it need?")
        later.blocks += _pictures(study, by_step, pictures, "budget", "env steps, 0.05 s each")
        sections += [section, later]
    compute = compute_sheet(study)
    return [*sections, _compute(study, compute, pictures)], [*sheets, compute]


def _pictures(study: Study, sheet: Sheet, pictures: Path, name: str, axis: str) -> list[Picture]:
    shown = []
    for number, evaluation in enumerate(study.evaluations):
        curve = sheet.frame[sheet.frame["evaluation"].astype(str) == evaluation]
        if curve.empty:
            continue
        path = pictures / f"{name}_{number}.png"
        draw_curves(path, curve, [row for row in study.learned(evaluation) if row in set(curve["row"])], axis)
        alt = f"Success of each row against {axis}, evaluation {evaluation}; the numbers are in {sheet.name}"
        shown.append(Picture(path, alt, f"Success against {axis}, evaluation {evaluation} ({sheet.name}). {BAND}"))
    return shown


def _strata_table(study: Study, sheet: Sheet, evaluation: str) -> Table:
    frame = sheet.frame[sheet.frame["evaluation"].astype(str) == evaluation]
    strata = list(dict.fromkeys(frame["stratum"]))[: len(ORDINALS) + 1]
    rows = [row for row in study.rows(evaluation) if row in set(frame["row"])]
    names, by = [*ORDINALS[: len(strata) - 1], "farthest"], "distance of the goal, nearest first"
    if not _are_distances(study.outcomes.frame):  # tasks in a set of maps
        strata, by = sorted(strata), "the number of cells in which a map differs from the nearest one of training"
        names = [f"{stratum:g}" for stratum in strata]
    body = [[Cell([row], row), *(_point(sheet, frame, row, "stratum", stratum) for stratum in strata)] for row in rows]
    caption = f"Success by {by}, evaluation {evaluation}"
    return Table(["row", *names], body, caption, study.quiet(rows))


def _are_distances(outcomes: Frame) -> bool:
    """Whether strata are classes of distance, of which no two overlap."""
    span = outcomes.groupby("stratum")["geodesic"].agg(["min", "max"]).sort_values("min").to_numpy()
    return bool((span[1:, 0] >= span[:-1, 1]).all())


def _point(sheet: Sheet, frame: Frame, row: str, column: str, value: object) -> Cell:
    found = frame.index[(frame["row"] == row) & (frame[column] == value)]
    if found.empty:
        return Cell(["–"])
    index = int(found[0])
    value, low, high = (float(sheet.frame.at[index, name]) for name in POINT)
    return Cell(sheet.percent(index, POINT), value, Bar(low, value, high, 0, 1))


def _radii(study: Study) -> Section:
    section = Section("How close, and does it stay?")
    section.text(
        "The same runs, judged more and more strictly: within half a metre at any time, within a quarter, within a tenth, "
        "and within half a metre when time is up; last, with the smaller of the two budgets of time."
    )
    columns = {
        "success": "within 0.5 m",
        "success_0.25": "within 0.25 m",
        "success_0.1": "within 0.1 m",
        "held": "held within 0.5 m",
        "success_short": "within 0.5 m in the smaller budget",
    }
    for evaluation in study.evaluations:
        rows = study.rows(evaluation)
        body = [[Cell([row], row), *(outcome_cell(study, row, evaluation, outcome) for outcome in columns)] for row in rows]
        caption = f"Success by radius, evaluation {evaluation}"
        section.blocks.append(Table(["row", *columns.values()], body, caption, study.quiet(rows)))
    return section


def _compute(study: Study, sheet: Sheet, pictures: Path) -> Section:
    """Success against what a row costs, and a table of the costs."""
    section = Section("What does it cost?")
    axes = {
        "parameters": ("parameters of encoder and predictor", ""),
        "seconds_per_decision": ("time per decision", "s"),
        "evaluations_per_plan": ("imagined plans per decision", ""),
    }
    learned = sheet.frame[~sheet.frame["row"].isin(BASELINES)]
    for name, (axis, unit) in axes.items():
        known = learned.dropna(subset=[name, "success"])
        if known[name].nunique() < 2:
            continue
        path = pictures / f"{name}.png"
        draw_against(path, known, name, axis, unit)
        caption = f"Success against {axis} (compute.csv); up and to the left is better."
        section.blocks.append(Picture(path, f"Scatter plot of success against {axis}, one point per row", caption))
    body = []
    for index in range(len(sheet.frame)):
        text = sheet.frame.at[index, "row"], sheet.frame.at[index, "evaluation"]
        numbers = [
            sheet.number(index, "parameters", "{:.1f}", 1e-6),
            sheet.number(index, "evaluations_per_plan", "{:.0f}"),
            sheet.number(index, "seconds_per_decision", "{:.1f}", 1000),
            sheet.number(index, "success", "{:.0f}", 100),
        ]
        keys = [sheet.value(index, n) for n in ("parameters", "evaluations_per_plan", "seconds_per_decision", "success")]
        cells = [Cell([n], "" if key is None else float(key)) for n, key in zip(numbers, keys, strict=True)]
        body.append([*(Cell([str(name)], str(name)) for name in text), *cells])
    columns = ["row", "evaluation", "parameters [M]", "plans per decision", "ms per decision", "success [%]"]
    section.blocks.append(Table(columns, body, "Cost of each row"))
    return section
