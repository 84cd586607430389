"""Devices by name."""

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
