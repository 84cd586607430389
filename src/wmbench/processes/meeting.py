"""What the processes of a command tell one another, over the CPU, so that nobody waits for a GPU."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
from numpy import ndarray

from wmbench.processes.group import OWN, is_first, local_rank, num_processes

Made = TypeVar("Made")

PATIENCE = timedelta(days=1)  # for processes that still work; one that has ended is noticed at once


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes, where torchrun has started several; all but the first are silent from then on."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    join("env://")
    if not is_first():
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until this process ends
    yield
    leave()


def join(address: str) -> None:
    """Meet the processes at an address as torch.distributed.rendezvous takes it."""
    import torch  # here, so that --help does not wait for it
    import torch.distributed as dist

    has_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    store, rank, size = next(dist.rendezvous(address))  # type: ignore[reportPrivateImportUsage]
    backend = "cpu:gloo,cuda:nccl" if has_gpus else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    OWN.rank, OWN.size, OWN.store = rank, size, store
    if has_gpus:
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())


def leave() -> None:
    import torch.distributed as dist

    dist.destroy_process_group()
    OWN.rank, OWN.size, OWN.store = 0, 1, None


def gathered(own: Made) -> list[Made]:
    """What each process gives, in the order of the processes."""
    if num_processes() == 1:
        return [own]
    import torch.distributed as dist

    found: list[Any] = [None] * num_processes()
    dist.all_gather_object(found, own)
    return found


def meet() -> None:
    """Go on when all processes are here."""
    gathered(None)


def by_first(make: Callable[[], Made]) -> Made:
    """What the first process makes, once all are here, and hands to the others: anything that writes or must be the same."""
    if num_processes() == 1:
        return make()
    import torch.distributed as dist

    meet()
    made: list[Any] = [make() if is_first() else None]
    dist.broadcast_object_list(made)
    return made[0]


def first_before_others(make: Callable[[], Made]) -> Made:
    """What each process makes for itself, the others after the first one, which may repair what they read."""
    meet()
    made: Any = make() if is_first() else None
    meet()
    return made if is_first() else make()


def any_of(flag: bool) -> bool:
    """Whether it is so in any process; cheap enough for every step."""
    if num_processes() == 1:
        return flag
    import torch
    import torch.distributed as dist

    found = torch.tensor(int(flag))  # on the CPU, so that nobody waits for a GPU
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found)


def agree(what: str, own: object, remedy: str) -> None:
    """Refuse to go on with processes that would not do the same.

    Raises:
        ValueError: naming what differs, and between whom.
    """
    for number, other in enumerate(found := gathered(own)):
        if other != found[0]:
            raise ValueError(f"{what} is {found[0]} in process 0 and {other} in process {number}; {remedy}")


def woven(own: ndarray) -> ndarray:
    """All rows in their order, where each process gives those of its share (`mine`)."""
    parts = gathered(own)
    whole = np.empty((sum(map(len, parts)), *own.shape[1:]), own.dtype)
    for number, part in enumerate(parts):
        whole[number :: num_processes()] = part
    return whole


def is_torn(error: BaseException) -> bool:
    """Whether an error says that another process has ended."""
    if num_processes() == 1:
        return False
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
