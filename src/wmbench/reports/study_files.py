"""A study's folder as the report reads it: whole, or as far as the study has come."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from wmbench.evaluation.row import BASELINES
from wmbench.files import parse_json, regular
from wmbench.reports.document import Number, Sheet

NEEDED = {
    "table.csv": ("row", "evaluation", "outcome", "success", "success_low", "success_high", "n_seeds", "n_tasks"),
    "contrasts.csv": ("name", "a", "b", "outcome", "difference", "low", "high", "verdict"),
    "outcomes.csv": ("row", "seed", "evaluation", "task", "success"),
}

OPTIONAL = ("pairs.csv", "cells.csv", "shifts.csv", "areas.csv")


@dataclass
class Tally:
    """Counts that the text needs and no other file holds; they become summary.csv."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, name: str, value: int | float, rule: str, form: str = "{:.0f}", scale: int | float = 1.0) -> Number:
        """Note a value with the rule that it follows, and return it as it is printed."""
        self.rows.append({"name": name, "value": value, "rule": rule})
        return Number(form.format(scale * value), "summary.csv", len(self.rows) + 1, "value", scale)

    @property
    def sheet(self) -> Sheet:
        return Sheet("summary.csv", pd.DataFrame(self.rows, columns=["name", "value", "rule"]))


@dataclass(frozen=True)
class Study:
    """table, contrasts, outcomes: as study.py writes them; empty where they are not there yet.

    pairs: every pair of rows, and their letters.
    cells: what the study asks for, with a `state` for each (done, failed, ...).
    shifts, areas: what other pictures cost each row, where evaluations show any.
    """

    folder: Path
    table: Sheet
    contrasts: Sheet
    outcomes: Sheet
    pairs: Sheet | None
    cells: Sheet | None
    shifts: Sheet | None
    areas: Sheet | None
    lock: Sheet

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def about(self) -> Number | str | None:
        """What the study's file says of it."""
        line = self.lock.frame.index[self.lock.frame["name"] == "about"]
        return self.lock.quote(int(line[0]), "value") if len(line) and self.lock.value(int(line[0]), "value") else None

    @cached_property
    def evaluations(self) -> list[str]:
        """Evaluations in the order of the table; the first is the one that the answer is about."""
        return list(dict.fromkeys(self.table.frame["evaluation"].astype(str)))

    def find(self, row: str, evaluation: str, outcome: str = "success") -> int | None:
        """Number of the table's line that has this outcome of a row."""
        frame = self.table.frame
        found = (frame["row"] == row) & (frame["evaluation"].astype(str) == evaluation) & (frame["outcome"] == outcome)
        return int(found.idxmax()) if found.any() else None

    def letters(self, row: str, evaluation: str) -> Number | None:
        """Letters of a row, from pairs.csv: rows that share one cannot be told apart."""
        for side in ("a", "b"):
            if self.pairs is not None and self.pairs.has(side, f"letters_{side}", "evaluation"):
                frame = self.pairs.frame
                found = (frame[side] == row) & (frame["evaluation"].astype(str) == evaluation)
                letters = self.pairs.quote(int(found.idxmax()), f"letters_{side}") if found.any() else "–"
                if isinstance(letters, Number):
                    return letters
        return None

    def rows(self, evaluation: str) -> list[str]:
        """Rows by falling success, floors and ceiling among them."""
        frame = self.table.frame
        names = list(dict.fromkeys(frame.loc[frame["evaluation"].astype(str) == evaluation, "row"]))
        return sorted(names, key=lambda name: -self.success(name, evaluation))

    def learned(self, evaluation: str) -> list[str]:
        return [row for row in self.rows(evaluation) if row not in BASELINES]

    def quiet(self, rows: Sequence[str]) -> frozenset[int]:
        """Places of floors and ceiling among rows of a table, which are drawn in grey."""
        return frozenset(place for place, row in enumerate(rows) if row in BASELINES)

    def success(self, row: str, evaluation: str) -> float:
        index = self.find(row, evaluation)
        value = None if index is None else self.table.value(index, "success")
        return -1.0 if value is None else float(value)

    def folders(self, row: str, evaluation: str) -> list[Path]:
        """plan.py's result folders of a row, of those that are still there."""
        index = self.find(row, evaluation)
        written = None if index is None else self.table.value(index, "folders") or self.table.value(index, "folder")
        return [path for part in str(written or "").split(";") if (path := Path(part.strip())).name and path.is_dir()]


def read_study(folder: Path) -> Study:
    """Read what is there of a study.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a csv file that is damaged or lacks a column.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no study {folder}; python study.py study={folder.name} makes it")
    table, contrasts, outcomes = (_read(folder / name, columns) for name, columns in NEEDED.items())
    pairs, cells, shifts, areas = (Sheet.read(folder / name) if (folder / name).exists() else None for name in OPTIONAL)
    return Study(folder, table, contrasts, outcomes, pairs, cells, shifts, areas, _read_lock(folder / "lock.json"))


def _read(path: Path, columns: Sequence[str]) -> Sheet:
    if not path.exists():
        return Sheet(path.name, pd.DataFrame(columns=list(columns)))
    sheet = Sheet.read(path)
    if not sheet.has(*columns):
        missing = ", ".join(name for name in columns if name not in sheet.frame.columns)
        raise ValueError(f"{path} lacks the columns {missing}; python study.py writes it again")
    return sheet


def _read_lock(path: Path) -> Sheet:
    """lock.json as lines of name and value; raises ValueError where it is damaged."""
    try:
        lock = parse_json(regular(path).read_text()) if path.exists() else {}
        return Sheet("lock.csv", pd.DataFrame(list(flat_json(lock)), columns=["name", "value"]).astype(str))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from None


def flat_json(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and lists under their dotted names."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from flat_json(child, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from flat_json(child, f"{prefix}.{number}")
    else:
        yield prefix, node
