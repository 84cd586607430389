"""The same work in one, two or three processes of a group, forked from the test's own, which start at once."""

import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wmbench.processes import meeting

LONGEST_S = 300


def in_processes(folder: Path, number: int, work: Callable[[], Any]) -> list[Any]:
    """What the work gives in each process; where it raises, the error's text."""
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    children = [_begin(folder, rank, number, work) for rank in range(number)]
    until = time.monotonic() + LONGEST_S
    try:
        while any(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for child in children):
            assert time.monotonic() < until, "they wait for one another"
            time.sleep(0.01)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)  # one that has ended is there until it is waited for
            os.waitpid(child, 0)
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(number)]


def _begin(folder: Path, rank: int, number: int, work: Callable[[], Any]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        if number > 1:
            meeting.join(f"file://{folder}/met?rank={rank}&world_size={number}")
        result = work()
        meeting.meet()
    except BaseException:
        result = traceback.format_exc()
    finally:
        (folder / f"{rank}.pickle").write_bytes(pickle.dumps(result))
        os._exit(0)
