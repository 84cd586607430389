"""Fitting a world model: the loop, the optimiser, metrics, saving and resuming."""

import csv
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from wmbench.checkpoint import save_weights
from wmbench.data.windows import Windows, ahead
from wmbench.machine import progress_bar
from wmbench.models.base import Losses
from wmbench.models.precision import applied_precision
from wmbench.models.world_model import WorldModel
from wmbench.shapes import Obs
from wmbench.store import load_resume, save_resume


@dataclass(frozen=True)
class Recipe:
    """How to train; conf/training holds one file for each.

    lr rises linearly over warmup_fraction of the steps and, if `cosine`, then falls to zero, one step after the last.
    save_every and valid_every count optimiser steps. encoder_lr: of an encoder with a rate of its own, which rises and
    falls as lr does.
    """

    max_steps: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup_fraction: float
    cosine: bool
    grad_clip: float | None
    save_every: int
    valid_every: int
    valid_batches: int
    encoder_lr: float | None = None

    def __post_init__(self) -> None:
        counts = ("max_steps", "batch_size", "save_every", "valid_every", "valid_batches")
        for name, value in asdict(self).items():
            key = name if name == "encoder_lr" else f"training.{name}"
            if name == "cosine" or (value is None and name in ("grad_clip", "encoder_lr")):
                continue
            if not isinstance(value, int if name in counts else (int, float)) or not math.isfinite(value):
                raise ValueError(f"{key} ({value!r}) must be a {'whole ' * (name in counts)}number")
            if name == "warmup_fraction" and not 0 <= value <= 1:
                raise ValueError(f"{key} ({value}) must be between 0 and 1")
            if name == "weight_decay" and value < 0:
                raise ValueError(f"{key} ({value}) must not be negative")
            if name not in ("warmup_fraction", "weight_decay") and value <= 0:
                raise ValueError(f"{key} ({value}) must be positive")

    @classmethod
    def of(cls, settings: Mapping[str, Any], encoder_lr: float | None = None) -> "Recipe":
        """Of a configuration's `training`, which also says what regularises the model.

        Raises:
            ValueError: a setting that there is not, or one that is missing.
        """
        known = {field.name for field in fields(cls)} - {"encoder_lr"}
        given = {str(name): value for name, value in settings.items() if name not in ("regularizer", "encoder_lr")}
        if given.keys() != known:
            raise ValueError(
                f"training has other settings than it should: {', '.join(sorted(given.keys() ^ known))}; "
                f"known: {', '.join(sorted(known))}"
            )
        return cls(**given, encoder_lr=encoder_lr)

    @property
    def warmup(self) -> int:
        """Steps during which lr rises."""
        return max(1, round(self.warmup_fraction * self.max_steps))

    @property
    def schedule(self) -> tuple[float, int, int | None]:
        """All that the rate of a step depends on."""
        return self.lr, self.warmup, self.max_steps if self.cosine else None

    def lr_at(self, step: int, peak: float | None = None) -> float:
        """The rate of parameters whose highest is `peak`, by default lr."""
        peak = self.lr if peak is None else peak
        rise = min(1.0, (step + 1) / self.warmup)
        if not self.cosine:
            return peak * rise
        progress = max(0.0, (step - self.warmup) / max(1, self.max_steps - self.warmup))
        return peak * rise * 0.5 * (1 + math.cos(math.pi * progress))


def fit(
    model: WorldModel,
    train: Windows,
    valid: Windows,
    recipe: Recipe,
    run: Path,
    *,
    seed: int,
    announce: Callable[[float], None],
    log: Callable[[dict[str, float | int]], None],
    compiled: bool = False,
) -> None:
    """Train to recipe.max_steps, going on from what `run` holds.

    Args:
        train, valid: of frames or of their tokens.
        announce: told the seconds that the remaining steps will take, from a trial step, before the first one.
        log: told every row of metrics.
        compiled: run the predictor through torch.compile.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step in progress is finished and saved.
    """
    device = next(model.parameters()).device
    optimizer = optimizer_of(model, recipe)
    step = load_resume(run, model, optimizer)
    model.train()
    if step < recipe.max_steps:
        if compiled:
            compile_predictor(model, lambda: _trial_step(model, train, recipe.batch_size))
        announce((recipe.max_steps - step) * _trial_step(model, train, recipe.batch_size))
    order = train.batches(recipe.batch_size, seed, first_step=step)
    with closing(ahead(lambda index: train.get(index, device), order)) as batches:
        run_steps(
            optimizer,
            recipe,
            step,
            loss_of_next=lambda: losses_of(model, *next(batches)),
            measure=lambda losses: {
                **{name: part.item() for name, part in losses.parts.items()},
                "valid_prediction": validate(model, valid, recipe),
            },
            save=lambda step: save_weights(run, step, model),
            save_state=lambda step: save_resume(run, step, model, optimizer),
            metrics=run / "metrics.csv",
            desc="training",
            shown="valid {valid_prediction:.4f}",
            log=log,
        )


def optimizer_of(model: WorldModel, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; for an encoder with a rate of its own without weight decay, which makes it DINO-WM's second optimiser, Adam."""
    trained = [p for p in model.parameters() if p.requires_grad]
    own = set() if recipe.encoder_lr is None else set(model.encoder.parameters())
    groups: list[dict[str, Any]] = [{"params": [p for p in trained if p not in own]}]
    if own:
        groups.append({"params": [p for p in trained if p in own], "peak_lr": recipe.encoder_lr, "weight_decay": 0.0})
    fused = trained[0].device.type == "cuda"
    return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused)


def compile_predictor(model: WorldModel, trial: Callable[[], object]) -> None:
    """Compile what most of a step is spent on; where a trial shows that it cannot be, say so and leave it as it was."""
    model.predictor.forward = torch.compile(model.predictor.forward)  # type: ignore[method-assign]
    try:
        trial()
    except Exception as error:  # whatever the compiler misses on this machine
        del model.predictor.forward
        print(f"note: torch.compile fails here ({str(error).strip().partition(chr(10))[0]}); training goes on without it")


class Loss(Protocol):
    @property
    def total(self) -> torch.Tensor: ...


L = TypeVar("L", bound=Loss)


def run_steps(
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    step: int,
    *,
    loss_of_next: Callable[[], L],
    measure: Callable[[L], dict[str, float]],
    save: Callable[[int], None],
    save_state: Callable[[int], None],
    metrics: Path,
    desc: str,
    shown: str,
    log: Callable[[dict[str, float | int]], None] = lambda row: None,
) -> None:
    """The steps from `step` to recipe.max_steps of any training here, with progress, metrics, saving and Ctrl-C.

    Args:
        loss_of_next: of the next batch.
        measure: what a row of metrics holds beside step, loss and steps_per_s.
        save: weights, every recipe.save_every steps and after the last one.
        save_state: all that the next step depends on; then and before stopping.
        shown: of a row, behind its loss in the progress bar.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step in progress is finished and saved.
    """
    bar = progress_bar(total=recipe.max_steps, initial=step, desc=desc, unit=" steps", smoothing=0.05)
    _drop_rows_after(metrics, step)
    started, started_step = time.perf_counter(), step
    with bar, _StopRequest() as stop:
        while step < recipe.max_steps:
            loss = loss_of_next()
            take_step(optimizer, recipe, step, loss.total)
            step += 1
            bar.update()
            if step % recipe.valid_every == 0 or step == recipe.max_steps:
                row: dict[str, float | int] = {"step": step, "loss": loss.total.item(), **measure(loss)}
                row["steps_per_s"] = (step - started_step) / (time.perf_counter() - started)
                _append_row(metrics, row)
                log(row)
                bar.set_postfix_str(f"loss {row['loss']:.4f}, {shown.format(**row)}", refresh=False)
            is_saved = step % recipe.save_every == 0 or step == recipe.max_steps
            if is_saved:
                save(step)
            if is_saved or stop.requested:
                save_state(step)
            if stop.requested and step < recipe.max_steps:
                raise KeyboardInterrupt


def take_step(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, loss: torch.Tensor) -> None:
    """Step number `step` down the gradient of the loss; nothing here waits for a GPU."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr_at(step, group.get("peak_lr"))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if recipe.grad_clip is not None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], recipe.grad_clip)
    optimizer.step()


class _StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a wish, since a step must not be left half done; a second one stops."""

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


@torch.no_grad()
def validate(model: WorldModel, valid: Windows, recipe: Recipe) -> float:
    """Mean one-step prediction error over the same held-out windows every time."""
    device = next(model.parameters()).device
    model.eval()
    batches = valid.batches(recipe.batch_size, seed=0)
    with torch.random.fork_rng():  # SIGReg draws directions; training must not feel that
        losses = [
            losses_of(model, *valid.get(next(batches), device)).parts["prediction"] for _ in range(recipe.valid_batches)
        ]
    model.train()
    return torch.stack(losses).mean().item()


def losses_of(model: WorldModel, obs: Obs, action: torch.Tensor) -> Losses:
    with autocast(action.device):
        return model.loss(obs, action)


def autocast(device: torch.device) -> AbstractContextManager:
    """What losses are computed under: the command's precision, by default bf16 on a GPU and fp32 on the CPU."""
    return applied_precision(device).autocast(device)


def _trial_step(model: WorldModel, train: Windows, batch_size: int) -> float:
    """Seconds of a step, measured on one that leaves no trace, even if it fails: buffers and random state are put back."""
    buffers = [buffer.clone() for buffer in model.buffers()]
    device = next(model.parameters()).device
    try:
        with torch.random.fork_rng():
            for _ in range(2):  # the first one warms up
                began = time.perf_counter()
                losses = losses_of(model, *train.get(next(train.batches(batch_size, seed=0)), device))
                losses.total.backward()
                losses.total.item()
                seconds = time.perf_counter() - began
    finally:
        for parameter in model.parameters():
            parameter.grad = None
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return seconds


def _append_row(path: Path, row: Mapping[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def _drop_rows_after(path: Path, step: int) -> None:
    """Forget rows that a killed run wrote after its last save; they will be written again."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
    path.unlink()
    for row in rows:
        _append_row(path, row)
