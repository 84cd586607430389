"""Logging to Weights & Biases, off until it is asked for."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from wmbench.processes.group import is_first


def wandb_mode(choice: object) -> str:
    """online, offline or disabled, or a switch for the first and the last.

    Raises:
        ValueError: another word.
    """
    words = {"true": "online", "on": "online", "yes": "online", "false": "disabled", "off": "disabled", "no": "disabled"}
    word = str(choice).lower()
    mode = words.get(word, word)
    if mode not in ("online", "offline", "disabled"):
        raise ValueError(f"wandb ({choice!r}) must be online, offline or disabled")
    return mode


@contextlib.contextmanager
def wandb_log(choice: object, name: str, config: Any) -> Iterator[Callable[[dict[str, float | int]], None]]:
    """A function that logs a row of metrics; it does nothing unless wandb was asked for.

    Raises:
        ValueError: wandb cannot start, for example without a login.
    """
    mode = wandb_mode(choice)
    if mode == "disabled" or not is_first():
        yield lambda row: None
        return
    import wandb

    try:
        session = wandb.init(project="wmbench", name=name, config=config, mode=mode)  # type: ignore[arg-type]
    except wandb.Error as error:
        raise ValueError(f"wandb={mode}: {error}; run `wandb login` first, or use wandb=offline or wandb=disabled") from None
    with session:
        yield lambda row: session.log(row, step=int(row["step"]))
