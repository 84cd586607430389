"""Devices by name."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from wmbench.machine import HUGE_PAGES, own_draws, pick_device


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or not HUGE_PAGES.exists(), reason="kept with glibc on Linux only")
def test_draws_of_one_gpu_put_back_its_state_and_the_cpus_and_touch_no_other_gpu(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: asked.append(device))
    for device, touched in (("cuda:2", [torch.device("cuda:2")] * 2), ("cpu", [])):
        before = torch.get_rng_state()
        with own_draws(torch.device(device)):
            torch.rand(1)
        assert torch.equal(torch.get_rng_state(), before)
        assert asked == touched
        asked.clear()


def test_freed_memory_is_used_again_by_the_next_tensor_of_its_size_also_where_small_ones_stay():
    """Counted as the pages that the kernel clears for a tensor of 40 MB, and as the most memory there was, of 3.6 GB."""
    environment = {**os.environ, "OMP_NUM_THREADS": "4"}
    run = subprocess.run([sys.executable, "-c", PAGES], check=True, capture_output=True, text=True, env=environment)
    *pages, grown_kb = map(float, run.stdout.split())
    assert max(pages) <= 40  # of 9766: at most the 30 of a small tensor that stays and takes the place of as many
    assert grown_kb < 250_000


PAGES = """
import resource, statistics, torch
from wmbench.machine import keep_freed_memory
keep_freed_memory()
usage = lambda: resource.getrusage(resource.RUSAGE_SELF)
began, stay = usage(), []
for held in (0, 100, 30_000):
    pages = []
    for k in range(30):
        before = usage().ru_minflt
        torch.ones(10_000_000)
        pages.append(usage().ru_minflt - before)
        stay.append(torch.ones(held + k))
    print(statistics.median(pages))
print(usage().ru_maxrss - began.ru_maxrss)
"""
