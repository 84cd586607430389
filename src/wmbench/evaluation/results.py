"""A result: who, under what conditions, how well; and the folder that holds it with the outcome of every task."""

import json
import re
import sys
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from wmbench.envs.maze_sets import MAP, MazeSet
from wmbench.envs.mazes import Maze
from wmbench.evaluation.conditions import Conditions
from wmbench.evaluation.episode_loop import Outcome
from wmbench.evaluation.row import BASELINES, Row
from wmbench.evaluation.scores import NAMES, summarise
from wmbench.evaluation.statistics import wilson
from wmbench.evaluation.tasks import Tasks
from wmbench.files import parse_json, regular, whole, write_text, writing

Summary = dict[str, Any]  # what summary.json holds
Scores = Mapping[str, np.ndarray]  # of each task, by name: see scores.score_paths


@dataclass(frozen=True)
class Score:
    """How well, over all tasks.

    evaluations_per_plan: rollouts scored for the plan of one task.
    seconds_per_decision, seconds_per_plan: of one task among those planned with it: looking, encoding and planning, and the
        plan only. The first plan, which compiles and warms up, counts only where there is no other.
    paths: what whole paths tell (scores.NAMES), where episodes are played on to their end.
    """

    success: float
    success_low: float
    success_high: float
    n_tasks: int
    steps_to_success: float | None = None
    final_distance: float | None = None
    evaluations_per_plan: float = 0.0
    seconds_per_decision: float = 0.0
    seconds_per_plan: float = 0.0
    paths: Mapping[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, outcome: Outcome, evaluations_per_plan: float, scores: Scores | None = None) -> "Score":
        """Summarise an outcome, with the scores of its whole paths where there are any."""
        whole_paths = {"steps": outcome.steps, "final_distance": outcome.final_distance}
        solved, number = int(outcome.success.sum()), len(outcome.success)
        return cls(
            solved / number,
            *wilson(solved, number),
            number,
            float(outcome.steps[outcome.success].mean()) if solved else None,
            float(outcome.final_distance.mean()),
            evaluations_per_plan,
            outcome.seconds_per_decision,
            outcome.seconds_per_plan,
            summarise({**scores, **whole_paths}) if scores else {},
        )


@dataclass(frozen=True)
class Result:
    """One row under one set of conditions.

    finished: when, in UTC; the newest of several equal results stays in a table.
    max_steps: env steps that were played, at most.
    """

    row: Row
    conditions: Conditions
    score: Score
    finished: str = ""
    seconds: float | None = None
    max_steps: int | None = None
    device: str | None = None
    commit: str | None = None
    folder: str = ""

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> "Result":
        """Read what `summary` gives, or what older versions wrote.

        Raises:
            ValueError: something else, or a result of another version, whose conditions are not known here.
        """
        try:
            actor = summary.get("actor") or (summary["row"] if summary["row"] in BASELINES else "model")
            row = Row(**{**_known(Row, summary), "actor": actor})
            paths = {name: summary[name] for name in NAMES if name in summary} if "held" in summary else {}
            score = Score(**{**_known(Score, summary), "paths": paths})
            if not 0 <= score.success <= 1 or score.n_tasks < 1:
                raise ValueError(f"success {score.success} of {score.n_tasks} tasks")
            given = summary["conditions"] if "conditions" in summary else _older_conditions(summary, row)
            if unknown := set(given) - {field.name for field in fields(Conditions)}:
                raise ValueError(f"unknown conditions {', '.join(sorted(unknown))}: written by another version of wmbench")
            rest = _known(cls, summary, without=("row", "conditions", "score"))
            return cls(row, Conditions(**_known(Conditions, given)), score, **rest)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no result ({type(error).__name__}: {error})") from None

    @property
    def summary(self) -> Summary:
        """All of it in one mapping: facts of the row and score under their own names, conditions under theirs."""
        own = {name: value for name, value in asdict(self).items() if name not in ("row", "score", "folder")}
        score = asdict(self.score)
        score |= score.pop("paths")
        asked = {"protocol": self.conditions.protocol.get("name"), "seed": self.conditions.seed}
        return asdict(self.row) | score | asked | {"tasks_hash": self.conditions.tasks} | own


def _known(kind: type, summary: Mapping[str, Any], without: Container[str] = ()) -> dict[str, Any]:
    """Values for the fields of a dataclass, each of its type."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.name in summary and field.name not in without]
    for name in names:
        hint = hints[name]
        allowed = [get_origin(one) or one for one in (get_args(hint) if isinstance(hint, UnionType) else (hint,))]
        if not isinstance(summary[name], tuple(Real if one in (int, float) else one for one in allowed)):
            raise TypeError(f"{name} is {summary[name]!r}")
    return {name: summary[name] for name in names}


def _older_conditions(summary: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """Conditions of a summary that had `settings`: only its tasks tell the maze, and nothing tells the code."""
    settings = summary["settings"]
    planned = row.actor in ("model", "simulator")
    agent = {name: value for name, value in settings.get("agent", {}).items() if name != "memory_gb"}
    return {
        "maze": [],
        "frameskip": summary.get("frameskip", 0),
        "tasks": summary["tasks_hash"],
        "protocol": settings["protocol"],
        "max_steps": summary.get("max_steps"),
        "seed": summary.get("seed"),
        "agent": agent if planned else None,
        "planner": settings.get("planner", {}) if planned else None,
        "objective": settings.get("objective", {}) if planned else None,
        "code": {"episodes": "not recorded"},
    }


def save_result(
    folder: Path,
    result: Result,
    tasks: Tasks,
    outcome: Outcome,
    maze: Maze | MazeSet,
    scores: Scores | None = None,
    imagined: Float[ndarray, "n K 2"] | None = None,
) -> None:
    """Write tasks.csv, paths.npz and, last, summary.json: a folder with a summary is complete.

    Args:
        imagined: where the plan of each of K blocks was imagined to end, where that can be read.
    """
    table = pd.DataFrame(
        {
            "task": np.arange(len(tasks)),
            "seed": tasks.seeds,
            **{f"start_{name}": tasks.start[:, k] for k, name in enumerate(("x", "y", "vx", "vy"))},
            **{f"goal_{name}": tasks.goal[:, k] for k, name in enumerate(("x", "y"))},
            "geodesic": maze.geodesic(tasks.start, tasks.goal),
            "success": outcome.success,
            "steps": outcome.steps,
            "final_distance": outcome.final_distance,
            **({} if tasks.stratum is None else {"stratum": tasks.stratum}),
            **({"map": tasks.start[:, MAP].astype(int)} if tasks.start.shape[1] > MAP else {}),
            **(scores or {}),
        }
    )
    write_text(folder / "tasks.csv", table.to_csv(index=False, float_format="%.4f"))
    with whole(folder / "paths.npz") as temporary:
        paths = {"states": outcome.states} if imagined is None else {"states": outcome.states, "imagined": imagined}
        kept: dict[str, Any] = {name: path.astype(np.float32) for name, path in paths.items()}
        np.savez_compressed(temporary, **kept)
    write_text(folder / "summary.json", json.dumps(result.summary, indent=2) + "\n")


def read_summary(folder: Path) -> Summary:
    """A finished result, with its own folder under `folder`, checked against the outcomes of its tasks.

    Raises:
        ValueError, OSError: a damaged file, by its name.
    """
    path = folder / "summary.json"
    try:
        summary = parse_json(regular(path).read_text())
        if not isinstance(summary, dict):
            raise ValueError(f"a {type(summary).__name__} instead of a mapping")
        result = Result.of(summary)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or something else: {error}") from None
    path = folder / "tasks.csv"
    try:
        solved = np.array([pd.read_csv(regular(path))[name] for name in ("success", "steps")])[0].astype(bool)
        if (len(solved), int(solved.sum())) != (result.score.n_tasks, round(result.score.success * result.score.n_tasks)):
            raise ValueError(f"{solved.sum()} of {len(solved)} tasks are solved in it, summary.json says otherwise")
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged or something else: {error}") from None
    return summary | {"folder": str(folder), "finished": result.finished or _stamp(folder)}


def find_summaries(root: Path) -> list[Summary]:
    """Every finished result under a folder, oldest first; what cannot be read is named and left out."""
    found = []
    for path in sorted(root.rglob("summary.json")):
        try:
            found.append(read_summary(path.parent))
        except (OSError, ValueError) as error:
            print(f"note: left out: {error}; delete it and plan.py plays it again", file=sys.stderr)
    return sorted(found, key=lambda summary: summary["finished"])


def _stamp(folder: Path) -> str:
    """When an older result began, from its folder's name."""
    match = re.match(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)_", folder.name)
    return f"{match[1]}T{match[2]}:{match[3]}:{match[4]}" if match else ""


def sentence(summary: Mapping[str, Any]) -> str:
    """`lewm_small solved 97 of 100 tasks: 97.0% (91.5 to 99.0)`."""
    solved = round(summary["success"] * summary["n_tasks"])
    low, high = 100 * summary["success_low"], 100 * summary["success_high"]
    return (
        f"{summary['row']} solved {solved} of {summary['n_tasks']} tasks: "
        f"{100 * summary['success']:.1f}% (95% interval {low:.1f} to {high:.1f})"
    )


def note_asked(root: Path, folder: Path) -> None:
    """Add a result's folder to root/asked.txt, which lists results as they were asked for, also those finished before."""
    path = root / "asked.txt"
    with writing(path, "the result is complete; the same command notes it once there is room"), path.open("a") as file:
        file.write(f"{folder}\n")


def read_asked(root: Path) -> list[str]:
    path = root / "asked.txt"
    return regular(path).read_text().splitlines() if path.exists() else []
