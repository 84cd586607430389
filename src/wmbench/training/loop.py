"""The one loop for everything that learns: resuming, a trial step, the steps, metrics, saving, Ctrl-C and divergence."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from wmbench.encoders.weights import not_finite
from wmbench.machine import free_disk, own_draws, progress_bar, size
from wmbench.models.base import Losses
from wmbench.planning.memory import is_out_of_memory
from wmbench.processes.batch import mean_of_all
from wmbench.processes.group import is_first, num_processes
from wmbench.processes.meeting import agree, any_of, by_first, first_before_others, gathered
from wmbench.runs.recipe import Recipe
from wmbench.runs.store import load_resume, save_resume, training_state
from wmbench.training.cost import disk_bytes
from wmbench.training.metrics import Metrics, Row
from wmbench.training.parallel import over_processes
from wmbench.training.trainee import Trainee

Log = Callable[[Row], None]
NEVER = 2**62  # a step that no training reaches


def train(trainee: Trainee, run: Path, *, announce: Callable[[float], None], log: Log = lambda row: None) -> None:
    """Train to recipe.max_steps, going on from what `run` holds, and leave the module in evaluation mode.

    Args:
        announce: told the seconds that the remaining steps will take, from a trial step, before the first one.
        log: told every row of metrics.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step in progress is finished and saved.
        ValueError: a loss, a weight or a measurement that is not finite; nothing of it is saved. Too little memory.
        OSError: too little room on the disk, before the first step or while saving.
    """
    with _within_memory(trainee, run):
        _train(trainee, run, announce, log)


def _train(trainee: Trainee, run: Path, announce: Callable[[float], None], log: Log) -> None:
    step = first_before_others(lambda: load_resume(run, trainee.module, trainee.optimizer, trainee.resume))
    agree(f"the step of {run}", step, "all machines need the same checkpoints folder")
    trainee.module.train()
    forward = trainee.forward
    if step < trainee.recipe.max_steps:
        by_first(lambda: _check_room(trainee, run, step))
        forward = over_processes(trainee, step)
        announce((trainee.recipe.max_steps - step) * measure_step(trainee, forward))
    with closing(trainee.batches(step)) as batches:
        _take_steps(trainee, forward, batches, run, step, log)
    trainee.module.eval()


def _check_room(trainee: Trainee, run: Path, step: int) -> None:
    needed, free = disk_bytes(trainee, step), free_disk(run / trainee.resume)
    if needed > free:
        raise OSError(
            f"{trainee.what} needs {size(needed)} of disk and {run} has {size(free)} free; make room, save less often "
            f"({trainee.recipe.where}.save_every, now {trainee.recipe.save_every}) or give {trainee.moved_by}=ANOTHER_DISK"
        )


def _take_steps(trainee: Trainee, forward: Callable[[Any], Losses], batches: Any, run: Path, step: int, log: Log) -> None:
    recipe, watch = trainee.recipe, _Watch(trainee, run, step)
    metrics = by_first(lambda: Metrics(run / trainee.metrics, step))
    bar = progress_bar(total=recipe.max_steps, initial=step, desc=trainee.what, unit=" steps", smoothing=0.05)
    started, started_step = time.perf_counter(), step
    with bar, _StopRequest() as stop:
        while step < recipe.max_steps:
            losses = forward(next(batches))
            watch.note(step + 1, take_step(trainee.optimizer, recipe, step, losses.total))
            step += 1
            bar.update()
            is_stopped = any_of(stop.requested)
            is_last = step == recipe.max_steps
            is_measured, is_saved = (step % every == 0 or is_last for every in (recipe.valid_every, recipe.save_every))
            if is_measured or is_saved or is_stopped:
                watch.check()
            if is_measured:
                row: Row = {"step": step, "loss": mean_of_all(losses.total).item()}
                row |= {name: mean_of_all(part).item() for name, part in losses.parts.items()} | trainee.validate()
                watch.check_row(row)
                row["steps_per_s"] = (step - started_step) / (time.perf_counter() - started)
                if is_first():
                    metrics.append(row)
                    log(row)
                bar.set_postfix_str(f"loss {row['loss']:.4f}, {trainee.shown.format(**row)}", refresh=False)
            if is_saved or is_stopped:
                watch.check_state(step)
                if is_first():
                    if is_saved:
                        trainee.save(run, step)
                    save_resume(run, step, trainee.module, trainee.optimizer, trainee.resume)
                watch.saved = step
            if is_stopped and step < recipe.max_steps:
                raise KeyboardInterrupt


def take_step(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, loss: Tensor) -> Tensor:
    """Step number `step` down the gradient of the loss; nothing here waits for a GPU.

    Returns:
        A number that is finite if the loss and, where it is clipped, the gradient are.
    """
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr_at(step, group.get("peak_lr"))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    health = loss.detach()
    if recipe.grad_clip is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        health = health + nn.utils.clip_grad_norm_(parameters, recipe.grad_clip)
    optimizer.step()
    return health


def measure_step(trainee: Trainee, forward: Callable[[Any], Losses] | None = None, finite: bool = True) -> float:
    """Measure the seconds of a step that leaves no trace, even if it fails: buffers and random state are put back.

    Args:
        forward: the trainee's, as it is used in training.
        finite: refuse a loss that is not, as it is before a matched arm has measured its tokens.
    """
    buffers = [buffer.clone() for buffer in trainee.module.buffers()]
    try:
        with own_draws(trainee.device), closing(trainee.batches(0)) as batches:
            for _ in range(2):  # the first one warms up
                began = time.perf_counter()
                loss = (forward or trainee.forward)(next(batches)).total
                loss.backward()
                if finite and not math.isfinite(loss.item()):
                    raise ValueError(
                        f"{trainee.what}: the loss is {loss.item()} before the first step, so it is not the training that "
                        "fails: the tokens or weights that it begins with hold NaN or Inf, or too much for its precision"
                    )
                seconds = time.perf_counter() - began
    finally:
        for parameter in trainee.module.parameters():
            parameter.grad = None
        for buffer, before in zip(trainee.module.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return seconds


@contextmanager
def _within_memory(trainee: Trainee, run: Path) -> Iterator[None]:
    """Say what to lower where memory runs out."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        recipe, path = trainee.recipe, run / trainee.resume
        kept = f"; what {path} holds is kept" if path.exists() else ""
        number = recipe.batch_size // num_processes()
        raise ValueError(
            f"{trainee.what}: batches of {number} do not fit into the memory of {trainee.device} "
            f"({' '.join(str(error).split())[:120]}){kept}. Lower {recipe.where}.batch_size and train {trainee.anew}, or "
            f"make room there: other programs may hold some of it"
        ) from error


class _Watch:
    """Finds the first step whose numbers are not finite, without waiting for a GPU until somebody needs to know."""

    def __init__(self, trainee: Trainee, run: Path, saved: int):
        self.trainee, self.run, self.saved = trainee, run, saved
        self.first_bad = torch.tensor(NEVER, device=trainee.device)

    def note(self, step: int, health: Tensor) -> None:
        self.first_bad = torch.minimum(self.first_bad, torch.where(health.isfinite(), NEVER, step))

    def check(self) -> None:
        if (step := min(gathered(int(self.first_bad)))) < NEVER:
            self._stop("the loss or its gradient", step)

    def check_row(self, row: Row) -> None:
        for name, value in row.items():
            if not math.isfinite(value):
                self._stop(name, int(row["step"]))

    def check_state(self, step: int) -> None:
        if bad := not_finite(training_state(self.trainee.module, self.trainee.optimizer)):
            self._stop(f"{bad[0]} ({len(bad)} such)", step)

    def _stop(self, what: str, step: int) -> None:
        recipe, path = self.trainee.recipe, self.run / self.trainee.resume
        good = f"the last good weights are those of step {self.saved}, in {path}" if self.saved else "nothing was saved yet"
        clip = (
            f"a lower {recipe.where}.grad_clip ({recipe.grad_clip})" if recipe.grad_clip else f"{recipe.where}.grad_clip=1"
        )
        raise ValueError(
            f"{self.trainee.what}: {what} is not finite since step {step} of {recipe.max_steps}; {good}. Train "
            f"{self.trainee.anew} with a lower {recipe.where}.lr ({recipe.lr:g}), a longer {recipe.where}.warmup_fraction "
            f"({recipe.warmup_fraction:g}) or {clip}"
        )


class _StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the step in progress; a second one stops at once."""

    requested = False

    def __enter__(self) -> "_StopRequest":
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
