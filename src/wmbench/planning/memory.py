"""How much memory rollouts take, measured, and how many of them therefore run at once."""

from collections.abc import Callable
from typing import Any
from weakref import finalize

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wmbench.models.compiled import as_written

MEASURED = (2, 4)  # rollouts; from the difference follows what one of them takes


def rollouts_at_once(run: Callable[[int], Any], device: torch.device, memory_gb: int | float) -> int:
    """How many rollouts fit into memory_gb, and into half of what is free on the device.

    Args:
        run: makes the given number of rollouts at once.
    """
    with as_written():  # what is measured is not worth a graph
        run(MEASURED[0])  # libraries take their workspaces, which are none of the rollouts' own
        few, more = (peak_bytes(lambda count=count: run(count), device) for count in MEASURED)
    each = (more - few) // (MEASURED[1] - MEASURED[0])
    if each <= 0:  # something else was held meanwhile; no rollout takes more than all of it
        each = max(1, few // MEASURED[0])
    fixed = max(0, few - MEASURED[0] * each)
    return max(1, int(min(memory_gb * 1e9, free_bytes(device) / 2) - fixed) // each)


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """Most bytes that a run holds at a time beyond what was held before.

    CUDA's allocator says so; elsewhere the tensors that PyTorch's operators return are counted while they live.
    """
    if device.type != "cuda":
        with _LiveTensors() as tensors:
            run()
        return tensors.peak
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def free_bytes(device: torch.device) -> int:
    """Bytes that could be allocated now."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by the allocator, for reuse
        return torch.cuda.mem_get_info(device)[0] + held
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return psutil.virtual_memory().available


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out: a GPU's, its matrix libraries', or a CPU's, whose allocator has no error class of its own."""
    told = ("not enough memory", "_STATUS_ALLOC_FAILED", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in told)


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors that come into being inside it, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say no to PyTorch, which would load its compiler for this class, for seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(tensor)._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and _storage(tensor)._cdata not in given | self._known:
                self._count(_storage(tensor))
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        finalize(storage, self._forget, key, size)  # a storage lives as long as its last view

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()
