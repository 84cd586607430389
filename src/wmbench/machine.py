"""The machine a command runs on: devices, cores, memory, and how progress and costs are told in words."""

import ctypes
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from tqdm import tqdm

from wmbench.processes.group import local_rank, num_processes

Made = TypeVar("Made")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")


def optional(what: str, make: Callable[[], Made]) -> Made | None:
    """Return what `make` gives, or None and a note if it fails: for pictures and facts that no result rests on."""
    try:
        return make()
    except Exception as error:  # no failure here may cost the result
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return print(f"note: {what} left out ({reason})", file=sys.stderr)


def progress_bar(**options: Any) -> tqdm:
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(mininterval=interval, maxinterval=interval, dynamic_ncols=True, **options)


def pick_device(name: str) -> torch.device:
    """Pick the named device; auto takes CUDA, else Apple's MPS, else the CPU. Of several processes each has its own GPU.

    Raises:
        ValueError: a device that this machine lacks.
    """
    if num_processes() > 1:
        name = _own_device(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"(cpu|cuda|mps)(:(0|[1-9]\d*))?", name):
        raise ValueError(f"unknown device {name!r}; known: auto, cpu, cuda, cuda:0, mps")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (here := torch.cuda.device_count()):
        sees = f"{here} of them here, cuda:0 first" if here else "no CUDA GPU here"
        raise ValueError(f"device={name}: torch sees {sees}; use device=auto or device=cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={name}: torch sees no Apple GPU here; use device=auto or device=cpu")
    return device


def _own_device(name: str) -> str:
    """The device of this one of several processes."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device={name} is one device, for {num_processes()} processes; give device=cuda or device=cpu")
    if name == "cuda" and local_rank() >= (here := torch.cuda.device_count()):
        raise ValueError(
            f"{local_rank() + 1} processes on a machine where torch sees {here} CUDA GPUs, and each needs its own; let "
            "torchrun start fewer (--nproc-per-node), or give device=cpu"
        )
    return f"cuda:{local_rank()}" if name == "cuda" else name


def num_cores() -> int:
    """Physical cores that this process may use."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, psutil.cpu_count(logical=False) or affinity))


def own_draws(device: torch.device) -> AbstractContextManager[None]:
    """Context whose draws change none that come after it; of all GPUs only this device is touched."""
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


def keep_freed_memory() -> None:
    """Let this process reuse memory that it frees (on Linux with glibc), and not give every large tensor's back.

    Pages that are given back come anew as zeros, which is up to half of a CPU's time in training. To be called before the
    first tensor is made.
    """
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    if HUGE_PAGES.exists() and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        # PyTorch's word for large tensors that begin with a page. At its usual 64 bytes, malloc cuts up to 96 off what it
        # needs and keeps that little for small things: the rest is too short for the next tensor of this size
        os.environ["THP_MEM_ALLOC_ENABLE"] = "1"
        mallopt(mmap, 2**30)
        mallopt(trim, 2**31 - 1)


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far, on the GPU or, without one, by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss


def free_disk(path: Path) -> int:
    """Bytes free on the disk where the path is or will be."""
    return shutil.disk_usage(_folder_above(path)).free


def disk_number(folder: Path) -> int:
    """Names the disk on which a folder is or will be."""
    return _folder_above(folder / "a file").stat().st_dev


def _folder_above(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def duration(seconds: int | float) -> str:
    """`42 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(num_bytes: int | float) -> str:
    """`12 kB`, `3.4 MB`, `30.1 GB`."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"
