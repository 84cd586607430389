"""Commands as a user types them, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "2", "COLUMNS": "200"}
TRAIN = "train.py env=point_maze encoder=lewm_small training.batch_size=8 training.valid_batches=1"
PLAN = "plan.py num_videos=1 protocol.num_tasks=3 planner.num_samples=8 planner.num_elites=3 planner.num_iters=2"


def start(folder: Path, command: str, **environment: str) -> subprocess.Popen:
    script, *arguments = command.split()
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, command: str, **environment: str) -> str:
    """Standard output of a command that succeeds."""
    process = start(folder, command, **environment)
    out, err = process.communicate()
    assert process.returncode == 0, f"{command}\n{out}\n{err}"
    return out


def refuse(folder: Path, command: str, **environment: str) -> str:
    """The one-line error of a command that fails as it should."""
    process = start(folder, command, **environment)
    _, err = process.communicate()
    assert process.returncode == 1, err
    assert "Traceback" not in err
    return next(line for line in err.splitlines() if line.startswith("error: "))
