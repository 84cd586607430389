"""What a row of a table rests on: one folder with the outcome of every task and a summary."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wmbench.envs.mazes import Maze
from wmbench.evaluation.episodes import Outcome
from wmbench.evaluation.statistics import wilson
from wmbench.evaluation.tasks import Tasks


def write_results(folder: Path, tasks: Tasks, outcome: Outcome, maze: Maze, facts: dict[str, Any]) -> dict[str, Any]:
    """Write tasks.csv, paths.npz and, last, summary.json: a folder with a summary is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(
        {
            "task": np.arange(len(tasks)),
            "seed": tasks.seeds,
            **{f"start_{name}": tasks.start[:, k] for k, name in enumerate(("x", "y", "vx", "vy"))},
            **{f"goal_{name}": tasks.goal[:, k] for k, name in enumerate(("x", "y"))},
            "geodesic": maze.geodesic(tasks.start[:, :2], tasks.goal[:, :2]),
            "success": outcome.success,
            "steps": outcome.steps,
            "final_distance": outcome.final_distance,
        }
    )
    table.to_csv(folder / "tasks.csv", index=False, float_format="%.4f")
    np.savez_compressed(folder / "paths.npz", states=outcome.states.astype(np.float32))
    solved = int(outcome.success.sum())
    low, high = wilson(solved, len(tasks))
    summary = facts | {
        "success": solved / len(tasks),
        "success_low": low,
        "success_high": high,
        "n_tasks": len(tasks),
        "tasks_hash": tasks.hash,
        "steps_to_success": float(outcome.steps[outcome.success].mean()) if solved else None,
        "final_distance": float(outcome.final_distance.mean()),
        "seconds_per_plan": outcome.seconds_per_plan,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def find_summaries(root: Path) -> list[dict[str, Any]]:
    """Every finished result under a folder, with its own folder under `folder`, oldest first."""
    paths = sorted(root.rglob("summary.json"), key=lambda path: path.stat().st_mtime)
    return [json.loads(path.read_text()) | {"folder": str(path.parent)} for path in paths]


def sentence(summary: dict[str, Any]) -> str:
    """`lewm_small solved 97 of 100 tasks: 97.0% (91.5 to 99.0)`."""
    solved = round(summary["success"] * summary["n_tasks"])
    low, high = 100 * summary["success_low"], 100 * summary["success_high"]
    return (
        f"{summary['row']} solved {solved} of {summary['n_tasks']} tasks: "
        f"{100 * summary['success']:.1f}% (95% interval {low:.1f} to {high:.1f})"
    )
