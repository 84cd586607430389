"""protocol=bench and bench_open: budgets by maze and frameskip, and a run of each planner at small size."""

import json
from pathlib import Path

import pandas as pd
import pytest
from in_process import compose, load_script

from wmbench.commands.budgets import settle
from wmbench.envs.mazes import Maze
from wmbench.evaluation.scores import NAMES


@pytest.mark.parametrize(
    ("protocol", "maze", "frameskip", "expected"),
    [
        ("bench", "umaze", 5, (30, 60, 6, 3)),
        ("bench", "umaze", 2, (30, 60, 15, 8)),
        ("bench", "large", 5, (50, 100, 10, 5)),
        ("bench_open", "umaze", 5, (30, 30, 6, 6)),
        ("bench_open", "medium", 10, (50, 50, 5, 5)),
        ("bench agent.num_taken=1 protocol.max_steps=90", "umaze", 5, (30, 90, 6, 1)),
        ("bench protocol.short_steps=20 protocol.max_steps=40", "open", 5, (20, 40, 4, 2)),
    ],
)
def test_budgets_are_the_mazes_and_plans_reach_to_the_smaller_one(protocol, maze, frameskip, expected):
    cfg = settle(compose("plan", f"model_name=x protocol={protocol}"), Maze(maze), frameskip)
    assert (cfg.protocol.short_steps, cfg.protocol.max_steps, cfg.agent.horizon, cfg.agent.num_taken) == expected


@pytest.mark.parametrize(
    ("words", "maze", "message"),
    [
        ("", "open", "protocol=bench has budgets for umaze, medium, large, not for open; give protocol.short_steps"),
        ("protocol.short_steps=32", "umaze", r"short_steps \(32\) must be a multiple of frameskip \(5\), such as 30"),
        ("protocol.plans=0", "umaze", r"protocol.plans \(0\) must be positive"),
    ],
)
def test_budgets_that_cannot_work_are_refused_by_name(words: str, maze: str, message: str):
    with pytest.raises(ValueError, match=message):
        settle(compose("plan", f"model_name=x protocol=bench {words}"), Maze(maze), 5)


@pytest.mark.parametrize(("protocol", "planner", "steps"), [("bench", "adam", 20), ("bench_open", "cem", 10)])
def test_a_trained_model_is_scored_on_the_shipped_tasks(protocol: str, planner: str, steps: int, tmp_path: Path):
    where = f"output_dir={tmp_path}/plans ckpt_base_path=checkpoints planner.num_samples=4 planner.budget=40 num_videos=0"
    words = f"model_name=point_maze_lewm protocol={protocol} protocol.split=validation protocol.num_tasks=3"
    words += " protocol.short_steps=10" + (" protocol.max_steps=20" if protocol == "bench" else "")
    elites = " planner.num_elites=2" if planner == "cem" else ""
    load_script("plan.py").main.__wrapped__(compose("plan", f"{where} {words} planner={planner} device=cpu{elites}"))
    (folder,) = (tmp_path / "plans").glob(f"*_{protocol}")
    summary, table = json.loads((folder / "summary.json").read_text()), pd.read_csv(folder / "tasks.csv")
    assert set(NAMES) <= set(summary) and summary["max_steps"] == steps and summary["n_tasks"] == 3
    assert list(table["stratum"]) == [0, 1, 2]
    for name in ("success", "success_0.25", "success_0.1", "held", "success_short"):
        assert table[name].mean() == summary[name]
    assert (table["success_0.1"] <= table["success_0.25"]).all() and (table["success_0.25"] <= table["success"]).all()
    baselines = {path.name for path in (tmp_path / "plans" / "baselines").glob("*/*")}
    assert baselines == {"random", "zero", "simulator"} - ({"simulator"} if planner == "adam" else set())
