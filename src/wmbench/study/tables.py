"""The tables of a study: every task's outcome, every row's success, every contrast's verdict."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from wmbench.evaluation.conditions import Conditions
from wmbench.evaluation.results import Result, Summary
from wmbench.files import write_text
from wmbench.reports.formats import csv_of
from wmbench.study.contrasts import judge, read_contrasts
from wmbench.study.grid import Cell, Study
from wmbench.study.outcomes import Known, Outcomes, all_pairs, planning_gaps, summarise
from wmbench.study.runner import Failures
from wmbench.study.shifts import Look, areas_of, looks_of, setting_of, shifts_of

KEYS = ["row", "evaluation"]
OF_TASKS = (
    *("task", "stratum", "geodesic", "success", "success_0.25", "success_0.1", "success_short", "held", "spl"),
    *("steps", "final_distance"),
)
OF_ROWS = ("encoder", "encoder_name", "arm", "note", "input_size", "parameters", "renderer", "image_size", "data_hash")
MEANS = (
    "position_r2",
    "effective_rank",
    "evaluations_per_plan",
    "seconds_per_decision",
    "seconds_per_plan",
    "steps",
    "spl",
    "final_distance",
)

Played = Mapping[Cell, Conditions]  # what decided the outcome of each cell


def write_tables(study: Study, done: Mapping[Cell, Summary]) -> None:
    """Write cells.csv and, if anything is done, outcomes.csv, table.csv, contrasts.csv and pairs.csv of that.

    conditions.json has what each hash in their column `conditions` stands for.
    """
    failures = Failures(study.folder)
    states = ["done" if cell in done else "failed" if failures.of(cell) else "missing" for cell in study.cells]
    _write(study.folder / "cells.csv", pd.DataFrame(study.cells).assign(state=states).astype({"seed": "Int64"}))
    if not done:
        return
    played = {cell: Result.of(summary).conditions for cell, summary in done.items()}
    outcomes, conditions = outcomes_of(done, played), {one.hash: one for one in played.values()}
    for problem in Outcomes(outcomes, conditions).problems():
        print(
            f"note: left out of the tables: {problem}; delete what is in the way below {study.folder / 'results'}",
            file=sys.stderr,
        )
    tables = {
        "outcomes": outcomes,
        "table": table_of(outcomes, done, played),
        "contrasts": judge(read_contrasts(study.contrasts), outcomes, study.margin, conditions),
        "pairs": pairs_of(outcomes, conditions),
    }
    looks, trained_on = looks_of(played), {cell.row: done[cell].get("appearance") for cell in done if cell.seed is not None}
    for name, make in (("shifts", shifts_of), ("areas", areas_of)):
        if len(table := make(outcomes, looks, trained_on, conditions)):
            tables[name] = table
    order = {name: place for place, name in enumerate(study.evaluations)}
    for name in {"table", "shifts"} & set(tables):  # in the study's order, of which the first is the one that it is about
        tables[name] = tables[name].sort_values("evaluation", key=lambda names: names.map(order), kind="stable")
    facts = {hash_: one.facts for hash_, one in conditions.items()}
    write_text(study.folder / "conditions.json", json.dumps(facts, indent=2) + "\n")
    for name, table in tables.items():
        _write(study.folder / f"{name}.csv", table)


def _write(path: Path, table: pd.DataFrame) -> None:
    write_text(path, csv_of(table, float_format="%.6g"))


def outcomes_of(done: Mapping[Cell, Summary], played: Played) -> pd.DataFrame:
    """Every task of every cell, a line each."""
    tables = []
    for cell, summary in done.items():
        tasks = pd.read_csv(Path(summary["folder"]) / "tasks.csv")
        own = {"row": cell.row, "seed": cell.seed, "evaluation": cell.evaluation, **_in_columns(played[cell])}
        tables.append(pd.DataFrame(own | {name: tasks.get(name) for name in OF_TASKS}, tasks.index))
    return pd.concat(tables, ignore_index=True).astype({"seed": "Int64"})


def table_of(outcomes: pd.DataFrame, done: Mapping[Cell, Summary], played: Played) -> pd.DataFrame:
    """Every row under every evaluation and outcome, with what is known of who it is and, on average, of what it took."""
    facts = pd.DataFrame(
        [_in_columns(played[cell]) | _facts(cell, summary, Look.of(played[cell])) for cell, summary in done.items()]
    )
    kinds = {name: "mean" if name in MEANS else _all_of for name in facts if name not in KEYS}
    known = facts.groupby(KEYS, sort=False).agg(kinds)
    gaps = planning_gaps(outcomes, conditions={one.hash: one for one in played.values()})  # of success only
    return summarise(outcomes).join(known, on=KEYS).merge(gaps, how="left", on=[*KEYS, "outcome"])


def pairs_of(outcomes: pd.DataFrame, conditions: Known) -> pd.DataFrame:
    """Every pair of rows under every evaluation, for exploring, with the letters of its rows."""
    tables = []
    for evaluation in outcomes["evaluation"].unique():
        pairs, letters = all_pairs(outcomes, evaluation, conditions=conditions)
        both = {f"letters_{side}": pairs[side].map(letters.get) for side in ("a", "b")}
        tables.append(pairs.assign(evaluation=evaluation, outcome="success", **both))
    return pd.concat(tables, ignore_index=True)


def _in_columns(conditions: Conditions) -> dict[str, Any]:
    planner = (conditions.planner or {}).get("_target_", "").rpartition(".")[2]
    return {"protocol": conditions.protocol.get("name"), "planner": planner, "conditions": conditions.hash}


def _facts(cell: Cell, summary: Summary, look: Look | None) -> dict[str, Any]:
    return {
        "row": cell.row,
        "evaluation": cell.evaluation,
        **{name: summary.get(name) for name in OF_ROWS},
        "weights": summary.get("encoder_source"),
        "setting": look and setting_of(summary.get("appearance"), look.seen),
        "goals": look and str(look.goal),
        **{name: pd.to_numeric(summary.get(name)) for name in MEANS},
        "folders": summary["folder"],
    }


def _all_of(values: pd.Series) -> Any:
    """The value that all runs of a row share, or all values."""
    known = list(dict.fromkeys(values.dropna()))
    return known[0] if len(known) == 1 else "; ".join(map(str, known)) or None
