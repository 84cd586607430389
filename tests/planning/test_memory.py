"""What rollouts take is counted from the tensors that live, and how many fit follows from it."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from wmbench.planning.memory import is_out_of_memory, peak_bytes, rollouts_at_once

CPU = torch.device("cpu")


def kilobytes(count: int) -> Tensor:
    return torch.ones(count, 250)


def test_the_peak_is_what_lives_together():
    def run() -> None:
        first = kilobytes(3)
        second = first + 1  # 6 kB
        del first
        kilobytes(2)  # 5 kB
        second.sum()

    assert peak_bytes(run, CPU) == 6000


def test_views_and_what_was_there_before_take_nothing():
    before = kilobytes(7)
    assert peak_bytes(lambda: (before.view(-1), before[2:], before.T), CPU) == 0
    assert peak_bytes(lambda: kilobytes(2).view(-1)[3:].view(1, -1).mul_(2), CPU) == 2000


def test_a_graph_keeps_what_its_backward_pass_needs():
    """exp keeps its result; eight of them in a row keep eight, which a rollout without gradients frees."""

    def run(with_gradients: bool) -> None:
        x = kilobytes(1).requires_grad_(with_gradients)
        for _ in range(8):
            x = x.exp()
        x.sum()

    assert peak_bytes(lambda: run(True), CPU) >= 9000
    assert peak_bytes(lambda: run(False), CPU) <= 3004


@pytest.mark.parametrize(("memory_gb", "expected"), [(20e-6, 9), (1e-6, 1), (1, 499)])
def test_as_many_run_as_fit_beside_what_one_takes_anyway(memory_gb: float, expected: int, monkeypatch: pytest.MonkeyPatch):
    """A kilobyte fixed and two a rollout; of two megabytes free one may be taken."""
    monkeypatch.setattr("wmbench.planning.memory.free_bytes", lambda device: 2e6)
    kept: list[Tensor] = []

    def run(count: int) -> None:
        kept[:] = [kilobytes(1), kilobytes(2 * count)]

    assert rollouts_at_once(run, CPU, memory_gb) == expected


def test_what_a_library_takes_once_is_not_taken_for_a_rollouts(monkeypatch: pytest.MonkeyPatch):
    """A workspace of 9 kB, kept from the first run on; two kilobytes a rollout."""
    monkeypatch.setattr("wmbench.planning.memory.free_bytes", lambda device: 2e9)
    workspace: list[Tensor] = []

    def run(count: int) -> None:
        workspace[:] = workspace or [kilobytes(9)]
        kilobytes(2 * count)

    assert rollouts_at_once(run, CPU, memory_gb=20e-6) == 10


def test_rollouts_that_seem_to_take_nothing_take_all_that_is_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wmbench.planning.memory.free_bytes", lambda device: 2e9)
    assert rollouts_at_once(lambda count: kilobytes(8), CPU, memory_gb=20e-6) == 5


def test_only_a_lack_of_memory_is_taken_for_one():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_what_is_not_compiled_does_not_wait_for_the_compiler_to_load():
    """Seconds of every command; torch loads it for its deterministic switch and for modes that see each operator."""
    program = """
import sys, torch
from wmbench.models.precision import Precision
from wmbench.planning.memory import rollouts_at_once
with Precision().applied():
    rollouts_at_once(lambda count: torch.ones(count, 3).sum(), torch.device("cpu"), 1.0)
print(sorted(sys.modules.keys() & {"torch._dynamo", "torch._inductor"}))
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert told == "[]\n"
