"""Devices by name."""

import platform
import subprocess
import sys

import pytest
import torch

from wmbench.machine import pick_device


@pytest.mark.parametrize("name", ["gpu", "1", "cuda:", "cuda:-1", "cuda:x", "cpu 0", "meta", ""])
def test_a_word_that_is_no_device_is_refused_with_those_that_are(name):
    with pytest.raises(ValueError, match="known: auto, cpu, cuda"):
        pick_device(name)


def test_a_gpu_beyond_those_there_are_is_refused():
    with pytest.raises(ValueError, match="use device=auto or device=cpu"):
        pick_device(f"cuda:{torch.cuda.device_count()}")


def test_the_cpu_is_there():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives the memory of large tensors back at once")
def test_freed_memory_is_used_again_and_not_given_back():
    """Counted as the pages that the kernel clears while a tensor of 40 MB comes and goes 20 times."""
    given_back, kept = (int(in_new_process(PAGES, when)) for when in ("False", "True"))
    assert kept < given_back / 5


PAGES = """
import resource, sys, torch
from wmbench.machine import keep_freed_memory
if {}:
    keep_freed_memory()
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(10_000_000)
before = pages()
for _ in range(20):
    torch.ones(10_000_000)
print(pages() - before)
"""


def in_new_process(program: str, value: str) -> str:
    return subprocess.run([sys.executable, "-c", program.format(value)], check=True, capture_output=True, text=True).stdout
