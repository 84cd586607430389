"""Tests that hang are ended, those that are slow are not."""

import subprocess
import sys
import time

import pytest
from hanging import ended_if_it_hangs

WAIT = [sys.executable, "-c", "import time; time.sleep(1000)"]
LOOP = [sys.executable, "-c", "while True: pass"]


def test_waiting_without_end_is_ended():
    with pytest.raises(pytest.fail.Exception, match="no work for 1 s"), ended_if_it_hangs(1, 100):
        time.sleep(1000)


def test_an_endless_loop_is_ended():
    with pytest.raises(pytest.fail.Exception, match="1 s of processor time"), ended_if_it_hangs(100, 1):
        while True:
            pass


@pytest.mark.parametrize(
    ("program", "limits", "reason"), [(WAIT, (1, 100), "no work for 1 s"), (LOOP, (100, 1), "1 s of processor time")]
)
def test_waiting_for_a_process_that_hangs_is_ended_with_it(program: list[str], limits: tuple[float, float], reason: str):
    with pytest.raises(pytest.fail.Exception, match=reason), ended_if_it_hangs(*limits):
        process = subprocess.Popen(program)
        process.communicate()
    assert process.wait() < 0


def test_a_process_that_works_is_waited_for_however_long_it_takes():
    """Twice as long as a process may be idle."""
    with ended_if_it_hangs(2, 100):
        process = subprocess.Popen(LOOP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=4)
        process.kill()
        process.wait()
