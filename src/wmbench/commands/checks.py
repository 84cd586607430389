"""Settings that a command line gives, checked before anything is built from them."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wmbench.commands.configuration import CONF, default_config, is_group, is_open, keys_of, unknown_key
from wmbench.evaluation.row import BASELINES
from wmbench.runs.find import check_below

# Settings that take more than one kind of value; their readers check them.
MIXED = ("compile", "cache.enabled", "cache.dir", "wandb", "checkpoint", "env.maze", "parts")
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    ListConfig: "a list",
    DictConfig: "a group of settings",
}
SEEDS = 2**32  # the legacy generators of numpy take no larger one
MOST_BYTES = 200  # of a run's or row's name: plan.py adds maze and protocol, and 255 is what file systems take


def given_words() -> list[str]:
    """The settings of the command line, or of a sweep's job, as they were written."""
    return OmegaConf.to_container(HydraConfig.get().overrides.task)  # type: ignore[return-value] - interpolations stay


def check_settings(cfg: DictConfig, config_name: str) -> None:
    """Refuse what the configuration does not have, and a value of another kind, before anything is built.

    Raises:
        ValueError: naming the key, the value and what it should be.
    """
    given = HydraConfig.get()
    words = given_words()
    folders = [source.path for source in given.runtime.config_sources if source.provider == "command-line"]
    default = default_config(given.job.config_name or config_name, words, folders)
    known = set(keys_of(default))
    for override in OverridesParser.create().parse_overrides(words):
        key = override.key_or_group
        if is_group(key):
            continue
        if override.is_delete():
            raise ValueError(f"~{key}: a command needs all of its settings; give {key} another value instead")
        if "\0" in str(override.value()):
            raise ValueError(f"{key} ({override.value()!r}) holds a zero byte, which no name has; leave it out")
        if key in known:
            check_value(key, _value(cfg, key), OmegaConf.select(default, key, throw_on_resolution_failure=False))
        elif not is_open(default, key):
            raise ValueError(unknown_key(key, known))
    if "model_name" in cfg and not OmegaConf.is_missing(cfg, "model_name"):
        check_name(cfg.model_name, is_new=config_name == "train")
    check_length("row", OmegaConf.select(cfg, "row", throw_on_resolution_failure=False) or "")


def _value(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key)
    except OmegaConfBaseException as error:  # an interpolation of nothing
        raise ValueError(f"{key}: {error}") from None


def check_value(key: str, value: Any, usual: Any) -> None:
    """Refuse a value of another kind than the usual one, or than that of the group's other choices.

    Raises:
        ValueError: naming the key, the value and what it should be.
    """
    if key in MIXED:
        return
    possible = [usual, *(() if _fits(value, usual) else _elsewhere(key))]
    if any(_fits(value, other) for other in possible):
        if key.endswith("seed") and isinstance(value, int) and not 0 <= value < SEEDS:
            raise ValueError(f"{key} ({value}) must be a whole number from 0 to {SEEDS - 1}")
        return
    known = next((other for other in possible if other is not None), None)
    if known is not None:
        kind = next(name for kind, name in KINDS.items() if isinstance(known, kind))
        raise ValueError(f"{key} ({'null' if value is None else repr(value)}) must be {kind}, such as {known}")


def _fits(value: Any, usual: Any) -> bool:
    if usual is None or value is None:
        return usual is value
    if isinstance(usual, float) and type(value) is int:
        return True
    return type(value) is type(usual) and not (isinstance(value, float) and not math.isfinite(value))


def _elsewhere(key: str) -> Iterator[Any]:
    """Values that the choices of a key's group give the key."""
    group, _, rest = key.partition(".")
    for path in sorted(Path(CONF, group).glob("*.yaml")):
        choice = OmegaConf.load(path)
        for place in (key, rest):
            if rest and (found := OmegaConf.select(choice, place, default="", throw_on_resolution_failure=False)) != "":
                yield found


def check_name(name: str, is_new: bool) -> None:
    """Refuse a run's name that leads out of the folder of runs, or, of a new run, that plan.py would read as another.

    Raises:
        ValueError: naming the rule.
    """
    check_below(name)
    check_length("model_name", name)
    if is_new and (name in BASELINES or "*" in name):
        means = "several runs" if "*" in name else "another actor"
        raise ValueError(f"model_name ({name!r}) means {means} to plan.py; give another name")


def check_length(key: str, name: str) -> None:
    """Refuse a name that a folder's cannot be made of.

    Raises:
        ValueError: naming its length.
    """
    if (num_bytes := len(os.fsencode(name))) > MOST_BYTES:
        raise ValueError(f"{key} ({name[:20]}...) takes {num_bytes} bytes, and at most {MOST_BYTES} are possible")
