"""How long, how fast and how often: the settings of a training."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from wmbench.processes.group import rows


@dataclass(frozen=True)
class Recipe:
    """How to train; conf/training holds one file for each.

    lr rises linearly over warmup_fraction of the steps and, if `cosine`, then falls to zero, one step after the last.
    save_every and valid_every count optimiser steps. encoder_lr: of an encoder with a rate of its own, which rises and
    falls as lr does. where: the key of the configuration that holds these settings.
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
    where: str = "training"

    def __post_init__(self) -> None:
        counts = ("max_steps", "batch_size", "save_every", "valid_every", "valid_batches")
        for name, value in asdict(self).items():
            key = name if name == "encoder_lr" else f"{self.where}.{name}"
            if name in ("cosine", "where") or (value is None and name in ("grad_clip", "encoder_lr")):
                continue
            if not isinstance(value, int if name in counts else (int, float)) or not math.isfinite(value):
                raise ValueError(f"{key} ({value!r}) must be a {'whole ' * (name in counts)}number")
            if name == "warmup_fraction" and not 0 <= value <= 1:
                raise ValueError(f"{key} ({value}) must be between 0 and 1")
            if name == "weight_decay" and value < 0:
                raise ValueError(f"{key} ({value}) must not be negative")
            if name not in ("warmup_fraction", "weight_decay") and value <= 0:
                raise ValueError(f"{key} ({value}) must be positive")
        try:
            rows(self.batch_size)
        except ValueError as error:
            raise ValueError(f"{self.where}.batch_size: {error}") from None

    @classmethod
    def of(cls, settings: Mapping[str, Any], encoder_lr: float | None = None, where: str = "training") -> "Recipe":
        """Read a configuration's `training`, which also says what regularises the model.

        Raises:
            ValueError: a setting that there is not, or one that is missing.
        """
        known = {field.name for field in fields(cls)} - {"encoder_lr", "where"}
        given = {str(name): value for name, value in settings.items() if name not in ("regularizer", "encoder_lr")}
        if given.keys() != known:
            raise ValueError(
                f"{where} has other settings than it should: {', '.join(sorted(given.keys() ^ known))}; "
                f"known: {', '.join(sorted(known))}"
            )
        return cls(**given, encoder_lr=encoder_lr, where=where)

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
