"""Commands in several processes: the same outcomes and files as in one, and one line where one of them fails."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from command_line import ENVIRONMENT, ROOT
from forked import COLLECT, PLAN, TRAIN, quick
from in_process import run_here
from several import in_processes

FEW = TRAIN.replace("env.data=maze.h5", "env.data={data} frameskip=3")
BUSY = "model_name=b training.max_steps=100000 training.save_every=100000 training.valid_every=100000"


def torchrun(folder: Path, number: int, command: str) -> subprocess.Popen:
    script, *words = command.split()
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    return subprocess.Popen(
        [*start, str(ROOT / script), *words],
        cwd=folder,
        env={**ENVIRONMENT, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def errors(err: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", err) if line.startswith("error: ")]


def test_a_plan_has_the_same_outcomes_in_one_two_and_three_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Bit for bit in what is kept of each task; the random floor too, and balls coast until the slowest task is over."""
    quick(monkeypatch)
    for command in (COLLECT, TRAIN):
        run_here(tmp_path, command)
    plan = f"{PLAN} protocol.num_tasks=4 protocol.coast=true"
    found = []
    for number in (1, 2, 3):
        words = [f"{plan} output_dir={number}", f"{plan} output_dir={number} model_name=random"]
        assert all(
            in_processes(tmp_path / f"met_{number}", number, lambda words=words: [run_here(tmp_path, w) for w in words])
        )
        root = tmp_path / str(number)
        paths = sorted(path.parent.relative_to(root) for path in root.rglob("summary.json"))
        assert len(paths) == len((root / "asked.txt").read_text().splitlines()) == 2
        states = [np.load(root / path / "paths.npz")["states"] for path in paths]
        success = [json.loads((root / path / "summary.json").read_text())["success"] for path in paths]
        found.append((paths, success, [(root / path / "tasks.csv").read_text() for path in paths], states))
    one, *others = found
    for *outcomes, states in others:
        assert outcomes == [*one[:3]]
        for path, expected in zip(states, one[3], strict=True):
            np.testing.assert_array_equal(path, expected)


@pytest.fixture
def data(numbered_episodes: Callable) -> Path:
    return numbered_episodes(num_episodes=17, length=12).path


@pytest.mark.slow
def test_torchrun_trains_and_prints_as_one_process(data: Path, tmp_path: Path):
    process = torchrun(tmp_path, 2, FEW.format(data=data))
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.count("trained: checkpoints/outputs/a") == out.count("are computed once and kept") == 1
    with (tmp_path / "checkpoints/outputs/a/metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [3, 6, 9, 12]


@pytest.mark.slow
def test_one_process_that_fails_ends_the_command_with_one_line(data: Path, tmp_path: Path):
    process = torchrun(tmp_path, 2, f"{FEW.format(data=data)} training.lr=-1")
    _, err = process.communicate()
    assert process.returncode == 1 and errors(err) == ["error: training.lr (-1) must be positive"]
    process = torchrun(tmp_path, 2, f"{FEW.format(data=data)} {BUSY}")
    (second,) = [child for child in workers(process, 2) if child.environ()["RANK"] == "1"]
    second.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors(err) == [
        "error: another of the command's processes has ended; what was saved is kept, and the same command goes on from it"
    ]


@pytest.mark.slow
def test_ctrl_c_ends_all_and_saves_the_step(data: Path, tmp_path: Path):
    process = torchrun(tmp_path, 2, f"{FEW.format(data=data)} {BUSY}")
    workers(process, 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert len(errors(err)) == 1 and "stopped; nothing that was saved is lost" in errors(err)[0]
    assert (tmp_path / "checkpoints/outputs/b/resume.safetensors").exists()


@pytest.mark.slow
def test_torchrun_plans(tmp_path: Path):
    words = "plan.py model_name=point_maze_lewm device=cpu num_videos=1 protocol.num_tasks=3 planner.num_samples=8"
    process = torchrun(tmp_path, 3, f"{words} planner.num_elites=3 planner.num_iters=2 protocol.max_steps=20")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.count("point_maze_lewm solved ") == out.count("wrote plan_outputs") == 1
    (summary,) = tmp_path.glob("plan_outputs/*_point_maze_lewm_demo/summary.json")
    assert list(summary.parent.glob("videos/*.mp4"))


def workers(process: subprocess.Popen, number: int, patience_s: float = 120) -> list[psutil.Process]:
    """The processes that torchrun has started, once they train."""
    until = time.monotonic() + patience_s
    run = Path(f"/proc/{process.pid}/cwd").resolve() / "checkpoints/outputs"
    while time.monotonic() < until:
        children = psutil.Process(process.pid).children()
        if len(children) == number and run.exists() and any(run.glob("b/config.yaml")):
            time.sleep(3)
            return children
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    raise AssertionError("it does not begin to train")
