"""The command that compare.py prints for a floor that is missing."""

import json
import shlex
from pathlib import Path

from in_process import load_script
from omegaconf import OmegaConf

from wmbench.commands.baselines import baseline_command
from wmbench.commands.configuration import compose

SMALL = "protocol=demo protocol.num_tasks=2 protocol.max_steps=20 planner=icem planner.num_samples=8 planner.num_elites=2"


def plan(words: list[str]) -> None:
    cfg = compose("plan", [word for word in words if not word.startswith("model_name=")])
    name = next(word.partition("=")[2] for word in words if word.startswith("model_name="))
    load_script("plan.py").main.__wrapped__(OmegaConf.merge(cfg, {"model_name": name}))


def test_the_command_of_a_missing_floor_plays_it_under_the_same_conditions(tmp_path: Path, capsys):
    where = [f"output_dir={tmp_path / 'plans'}", f"tasks_dir={tmp_path / 'tasks'}"]
    plan(["model_name=random", *SMALL.split(), "seed=3", "env.maze=medium", "env.frameskip=10", *where])
    (first,) = (tmp_path / "plans").rglob("summary.json")
    command = baseline_command("zero", first.parent, tmp_path / "plans")
    script, *words = shlex.split(command.removeprefix("python "))
    plan(words)
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "plans").rglob("summary.json")]
    random, zero = (next(s["conditions"] for s in summaries if s["row"] == name) for name in ("random", "zero"))
    assert script == "plan.py" and zero == random | {"seed": None, "code": zero["code"]}
