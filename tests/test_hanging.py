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


def test_waiting_for_a_process_that_waits_is_ended_with_it():
    with pytest.raises(pytest.fail.Exception, match="no work for 1 s"), ended_if_it_hangs(1, 100):
        process = subprocess.Popen(WAIT)
        process.communicate()
    assert process.wait() < 0


def test_an_endless_loop_is_ended():
    with pytest.raises(pytest.fail.Exception, match="1 s of processor time"), ended_if_it_hangs(100, 1):
        while True:
            pass


def test_waiting_for_a_process_in_an_endless_loop_is_ended_with_it():
    with pytest.raises(pytest.fail.Exception, match="1 s of processor time"), ended_if_it_hangs(100, 1):
        process = subprocess.Popen(LOOP)
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
