"""The processes that one command runs in: torchrun starts several, each does its share, and the first one writes.

Without torchrun a command is one process, and everything here hands back what it is given.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


class _Group:
    """Which of how many processes this one is, and the store through which they found one another."""

    rank, size = 0, 1
    store: Any = None


OWN = _Group()


def rank() -> int:
    """Number of this process, from 0."""
    return OWN.rank


def num_processes() -> int:
    """Number of processes."""
    return OWN.size


def is_first() -> bool:
    return OWN.rank == 0


def local_rank() -> int:
    """Number of this process on its machine, from 0: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if num_processes() > 1 else 0


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process does what one without others would do: all of it, and waits for nobody."""
    before = OWN.rank, OWN.size
    OWN.rank, OWN.size = 0, 1
    try:
        yield
    finally:
        OWN.rank, OWN.size = before


def mine() -> slice:
    """This process's share of things that are done one by one: every size-th."""
    return slice(rank(), None, num_processes())


def rows(count: int) -> slice:
    """This process's rows of a batch, of which each process takes as many.

    Raises:
        ValueError: a batch that does not divide.
    """
    if count % num_processes():
        fitting = max(number for number in range(1, num_processes()) if count % number == 0)
        near = max(1, round(count / num_processes())) * num_processes()
        rule = f"a batch of {count} does not divide among {num_processes()} processes"
        raise ValueError(f"{rule}; make it {near}, or let torchrun start {fitting}")
    own = count // num_processes()
    return slice(rank() * own, (rank() + 1) * own)


def fair_rows(count: int) -> slice:
    """This process's rows of a batch whose mean is asked for; all of them where it does not divide, which gives the same."""
    return slice(None) if count % num_processes() else rows(count)


def voice() -> Any:
    """Where an error is printed, also by a process that is silent otherwise."""
    return sys.stderr if is_first() else sys.__stderr__ or sys.stderr


def is_first_failure() -> bool:
    """Whether no other process has failed before; whoever fails later does so because that one is gone."""
    try:
        return num_processes() == 1 or OWN.store.add("failed", 1) == 1
    except RuntimeError:  # the store has ended with the process that keeps it
        return False


def end(code: int) -> NoReturn:
    """End this process; one of several without waiting for work that the others will not answer."""
    if num_processes() == 1:
        sys.exit(code)
    sys.stdout.flush()
    voice().flush()
    os._exit(code)
