"""The whole loop (collect, train, plan) at a size of seconds, in a forked child, which starts at once and may be killed."""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from in_process import enter, load_script
from safetensors.numpy import load_file

COLLECT = (
    "scripts/collect.py env.renderer=warp num_workers=1 num_episodes=17 episode_length=15 store_every=5 image_size=16 "
    "output=maze.h5"
)
TRAIN = (
    "train.py encoder=random_patch encoder.image_size=16 encoder.grid=2 encoder.embed_dim=6 env.data=maze.h5 model_name=a "
    "num_hist=2 device=cpu predictor.depth=1 predictor.num_heads=2 predictor.head_dim=4 predictor.mlp_dim=8 "
    "training.batch_size=4 training.max_steps=12 training.save_every=2 training.valid_every=3 training.valid_batches=1 "
    "cache.enabled=true cache.dir=tokens"
)
PLAN = (
    "plan.py model_name=a device=cpu num_videos=0 baselines=false protocol.num_tasks=3 protocol.max_steps=20 "
    "planner.num_samples=8 planner.num_elites=3 planner.num_iters=2"
)
LOOP = (COLLECT, TRAIN, PLAN)


class Square:
    """A renderer of a bright square at the ball, which is quick and can be forked."""

    name, driver = "warp", "a square"

    def __init__(self, size: int):
        self.size = size

    def frames(self, position: np.ndarray, scene: object = None) -> np.ndarray:
        frames = np.zeros((len(position), self.size, self.size, 3), np.uint8)
        for frame, (x, y) in zip(frames, position, strict=True):
            column, row = (int(np.clip((at + 1) / 4 * self.size, 0, self.size - 2)) for at in (x, y))
            frame[row : row + 2, column : column + 2] = 255
        return frames


def quick(patch: pytest.MonkeyPatch) -> None:
    """Draw by squares, and fork the processes that collect; what is patched is as it was when the test ends."""
    patch.setattr("wmbench.envs.rendering.WarpRenderer", lambda model, size, *_: Square(size))
    patch.setattr("wmbench.data.collection.get_context", lambda kind: multiprocessing.get_context("fork"))
    for command in LOOP:
        load_script(command.split()[0])  # imported once, here


def begin(folder: Path, commands: tuple[str, ...] = LOOP, told: Path | None = None) -> int:
    """Run commands in a child, which writes what they print to told.log, or folder.log; returns its process number."""
    log_file = (told or folder).with_suffix(".log")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with log_file.open("w") as log:
            for command in commands:
                code, out, err = enter(folder, command)
                print(command, out, err, file=log)
                if code:
                    break
    except BaseException:
        log_file.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def end(child: int, folder: Path, kill_at: float = np.inf) -> float | None:
    """Wait for the child, or kill it once it has used so many seconds of processor time.

    Returns:
        The processor time that it took; None where it was killed.
    """
    used = 0.0
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        used = max(used, work_of(child))
        if used >= kill_at:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.001)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGKILL:
        return None
    assert status == 0, folder.with_suffix(".log").read_text()
    return used


def work_of(child: int) -> float:
    """Processor time [s] of a process and of the processes that it has started."""
    try:
        process = psutil.Process(child)
        return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0.0


def numbers(folder: Path) -> dict[str, Any]:
    """All that the loop has left, but for times and places."""
    run = folder / "checkpoints/outputs/a"
    (result,) = (folder / "plan_outputs").glob("*_a_demo")
    metrics = [line.rpartition(",")[0] for line in (run / "metrics.csv").read_text().splitlines()]  # without the speed
    found: dict[str, Any] = {"data": (folder / "maze.h5").read_bytes(), "metrics": metrics}
    for path in (*sorted(run.glob("[!.]*.safetensors")), *(folder / "data/tasks").glob("*"), result / "tasks.csv"):
        found[path.name] = path.read_bytes()
    found["resume"] = {name: tensor.tobytes() for name, tensor in load_file(run / "resume.safetensors").items()}
    found["paths"] = np.load(result / "paths.npz")["states"].tobytes()
    return {name: contents for name, contents in found.items() if not name.startswith("resume_before")}
