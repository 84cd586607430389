"""Ends a test that hangs, by the processor time that it uses: the clock would also end one on a slow or busy machine."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

IDLE_S = 300  # on the clock: nothing here waits for so long, and among 200 busy processes it would still get some work done
STARTS = 1000  # times what starting this process has taken: ten times the longest test


@contextmanager
def ended_if_it_hangs(idle_s: float, work_s: float) -> Iterator[None]:
    """Fail what runs inside, and end the processes it started, where it waits or works without end.

    Args:
        idle_s: seconds without work, its own and that of the processes it started, after which it waits for nothing.
        work_s: seconds of processor time, of all of them together, after which it is in an endless loop.
    """
    reason, done = "", threading.Event()

    def fail(*_: object) -> None:
        for process in psutil.Process().children(recursive=True):
            process.kill()
        pytest.fail(reason)

    def watch() -> None:
        nonlocal reason
        began = counted = worked()
        since = time.monotonic()
        while not done.wait(min(5, idle_s / 4)):
            now, so_far = time.monotonic(), worked()
            if abs(so_far - counted) >= idle_s / 100:
                since, counted = now, so_far
            if now - since > idle_s:
                reason = f"it hangs: no work for {idle_s:.0f} s"
            elif so_far - began > work_s:
                reason = f"it hangs: {work_s:.0f} s of processor time are used up"
            if reason:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
                if not done.wait(idle_s):  # in code that no signal reaches
                    os._exit(1)

    before = signal.signal(signal.SIGUSR1, fail)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def worked() -> float:
    """Processor time [s] of this process, but for the asking thread, and of those it started."""
    this = psutil.Process()
    total = time.process_time() - time.thread_time() + sum(this.cpu_times()[2:4])  # of the children that have ended
    for process in this.children(recursive=True):
        try:
            total += sum(process.cpu_times()[:4])  # its own as user and as system, and both of its children
        except psutil.Error:  # it has ended since
            continue
    return total
