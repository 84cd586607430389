"""What a training will take: time, disk and memory, before its first step."""

import time
from collections.abc import Callable

import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from wmbench.encoders.base import Encoder
from wmbench.encoders.matched import unmatched
from wmbench.machine import duration, peak_memory, size
from wmbench.runs.store import own_state
from wmbench.training.trainee import Trainee

EVENING_S = 4 * 3600


class RandomTokens:
    """Tokens of no frames, as a cache keeps them, to time a step with before there are any."""

    encoded = True

    def __init__(self, encoder: Encoder):
        own = unmatched(encoder)  # a matched arm changes what it reads
        self.shape = (own.num_tokens, own.embed_dim)

    def visual(self, steps: Int[ndarray, "B T"], episode: Int[ndarray, "B T"], device: torch.device) -> Tensor:
        return torch.randn(*steps.shape, *self.shape, device=device)


def disk_bytes(trainee: Trainee, step: int) -> int:
    """Bytes that the steps after `step` will write: every file of weights, and three of the state while one is replaced."""
    recipe = trainee.recipe
    num_saves = -(-recipe.max_steps // recipe.save_every) - step // recipe.save_every
    weights = sum(tensor.nbytes for tensor in own_state(trainee.module).values())
    learned = sum(p.nbytes for group in trainee.optimizer.param_groups for p in group["params"])
    return trainee.num_files(num_saves) * weights + 3 * (weights + 2 * learned)  # Adam keeps two numbers of each weight


def forecast(what: str, trainee: Trainee, step: int, seconds: float) -> str:
    """Two lines on what the steps after `step` will take."""
    number = sum(p.numel() for group in trainee.optimizer.param_groups for p in group["params"])
    return (
        f"{what}, {number / 1e6:.1f} M trained parameters\n"
        f"will take about {duration(seconds)} on {trainee.device}, {size(disk_bytes(trainee, step))} of disk, "
        f"{size(peak_memory(trainee.device))} of memory"
    )


def evening(num_steps: int, step_s: float, num_frames: int, frame_s: float) -> str | None:
    """What steps on tokens and their frames will take where that is longer than an evening, and which recipe is as long.

    Args:
        step_s, frame_s: seconds of a step, and of encoding a frame.
        num_frames: to be encoded once, before the first step.
    """
    before = num_frames * frame_s
    if before + num_steps * step_s <= EVENING_S:
        return None
    fit = max(1, int(max(0.0, EVENING_S - before) / step_s))
    fit = int(float(f"{fit:.1e}"))  # two digits, since it is an estimate
    return (
        f"{num_steps:,} steps will take about {duration(num_steps * step_s)} here, after {duration(before)} for encoding "
        f"{num_frames:,} frames once (unless they are kept already); an evening ({duration(EVENING_S)}) is enough for "
        f"training.max_steps={fit} training.cosine=true, and arm=matched matched.pool=7 (where 7 divides the grid) makes "
        "steps cheaper"
    )


def seconds_of(call: Callable[[], object]) -> float:
    """Measure the second of two calls [s]; the first one warms up."""
    for _ in range(2):
        began = time.perf_counter()
        call()
    return time.perf_counter() - began
