"""Commands of the project that pretend: they leave the files that a study looks for, at once."""

import re
from pathlib import Path

import numpy as np

from wmbench.envs.mazes import Maze
from wmbench.evaluation.conditions import Conditions
from wmbench.evaluation.episode_loop import Outcome
from wmbench.evaluation.results import Result, Score, save_result
from wmbench.evaluation.row import BASELINES, Row
from wmbench.evaluation.tasks import Tasks

MAZE, TASKS = Maze("umaze"), Tasks(np.full((4, 4), 1.0), np.full((4, 4), 2.0), np.arange(4))


class Commands:
    """Takes the place of runner.call.

    calls: what was run, a script and what it made each.
    failing: runs that no command makes.
    stopped_at: numbers of calls that are stopped by hand before they make anything.
    """

    def __init__(self, failing=(), stopped_at=()):
        self.calls, self.failing, self.stopped_at, self.count = [], failing, stopped_at, 0

    def __call__(self, command, stdout, stderr, stdin, env):
        script = Path(command[1]).name
        given = dict(word.split("=", 1) for word in command[2:] if "=" in word)
        self.count += 1
        if self.count in self.stopped_at:
            return 130
        if script == "collect.py":
            self.made(script, "data")
            Path(given["output"]).touch()
            return 0
        names = [given["model_name"].replace("${seed}", seed) for seed in given.get("seed", "").split(",")]
        failed = 0
        for name in names if script == "train.py" else given["model_name"].split(","):
            if name in self.failing:
                print(f"error: model_name={name}: memory ran out", file=stdout, flush=True)
                failed = 1
                continue
            self.made(script, name)
            if script == "train.py":
                run = Path(given["ckpt_base_path"], "outputs", name)
                run.mkdir(parents=True)
                (run / "probe.safetensors").touch()
            else:
                save_pretended(Path(given["output_dir"], name), name)
        return failed

    def made(self, script, name):
        self.calls.append((script, name))


def save_pretended(folder, name):
    """The result of a run that solves as many of the four tasks as its seed."""
    seed = int(match[1]) if (match := re.search(r"_s(\d)$", name)) else 0
    success = np.arange(4) < seed
    outcome = Outcome(np.zeros((4, 11, 4)), success, np.where(success, 3, 10), np.full(4, 0.4), 0.25)
    row = Row(name, actor="model" if name not in BASELINES else name)
    conditions = Conditions(list(MAZE.rows), 5, TASKS.hash, {"name": "demo"}, max_steps=10, seed=0)
    save_result(folder, Result(row, conditions, Score.of(outcome, 1.0), finished="2026-11-27"), TASKS, outcome, MAZE)
