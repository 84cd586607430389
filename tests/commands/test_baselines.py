"""The command that compare.py prints for a floor that is missing."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("planner: {_target_: os.system, command: touch x}", r"planner._target_ (os.system) is none of the classes"),
        ("objective: {_target_: os.system}", "objective._target_ (os.system) is none of the classes"),
        ("protocol: {name: ../../evil}", "protocol.name (../../evil) is none of conf/protocol"),
        ("seed: ${oc.env:HOME}", "seed (${oc.env:HOME}) asks for more than a key of this file"),
    ],
)
def test_a_strangers_result_is_not_turned_into_a_command_that_would_be_trusted(tmp_path: Path, changed: str, message: str):
    plain: Any = compose("plan", ["model_name=x"])
    settings: Any = OmegaConf.to_container(OmegaConf.masked_copy(plain, ["protocol", "planner", "objective"]), resolve=False)
    changes: Any = OmegaConf.to_container(OmegaConf.create(changed), resolve=False)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml({**settings, "planner": {}, **changes}))
    command = baseline_command("random", tmp_path, tmp_path)
    assert command.startswith(f"python plan.py model_name=random, with the settings of {tmp_path} (") and message in command
