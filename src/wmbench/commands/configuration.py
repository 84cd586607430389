"""The configurations of conf/: what is there, composed by Hydra, and the nearest of its names to a wrong one."""

import difflib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from wmbench.commands.quoting import quoted
from wmbench.files import shipped

CONF = str(shipped("conf"))


def encoder_config(name: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """What conf/encoder/NAME.yaml says, with its defaults and with settings (encoder.KEY=VALUE) in place of its own."""
    cfg = compose("train", [f"encoder={name}", *map(quoted, settings)])
    return OmegaConf.to_container(cfg.encoder, resolve=True)  # type: ignore[return-value]


def compose(config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A configuration of conf/, also while Hydra runs a command."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(CONF, version_base="1.3"):
            return hydra.compose(config_name, list(overrides))
    finally:
        GlobalHydra.instance().hydra = running


def default_config(config_name: str, words: Sequence[str], folders: Sequence[str] = ()) -> DictConfig:
    """The configuration with the choices among a command line's words, also from other folders, and no plain values."""
    chosen = [word for word in words if is_group(word.lstrip("+").partition("=")[0]) and "," not in word]
    places = [f"hydra.searchpath=[{','.join(repr(f'file://{folder}') for folder in folders)}]"] if folders else []
    return _composed_once(config_name, *chosen, *places)


@cache  # the jobs of a sweep are checked against the same one
def _composed_once(config_name: str, *overrides: str) -> DictConfig:
    cfg = compose(config_name, overrides)
    OmegaConf.set_readonly(cfg, True)
    return cfg


def is_group(key: str) -> bool:
    return Path(CONF, key.partition("@")[0]).is_dir()


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in Path(CONF, group).glob("*.yaml"))


def keys_of(node: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration, dotted."""
    for key in node:
        yield f"{prefix}{key}"
        if OmegaConf.is_dict(child := node._get_node(key)):
            yield from keys_of(child, f"{prefix}{key}.")


def is_open(default: DictConfig, key: str) -> bool:
    """Whether a key may be added: below a mapping that is empty by default, or an argument of what is built there."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(default, parent, throw_on_resolution_failure=False) if parent else None
    if node is None:
        return bool(parent) and is_open(default, parent)
    if not OmegaConf.is_dict(node):
        return False
    return not node or ("_target_" in node and name in inspect.signature(get_class(node._target_)).parameters)


def nearest(wrong: str, valid: Iterable[str]) -> str:
    """`, did you mean a or b?` or nothing."""
    valid = list(valid)
    leaf = wrong.rpartition(".")[2]
    close = (
        difflib.get_close_matches(wrong, valid, n=2, cutoff=0.75)
        or [name for name in valid if name.rpartition(".")[2] == leaf][:3]
    )
    return f", did you mean {' or '.join(close)}?" if close else ""


def unknown_key(wrong: str, known: Iterable[str]) -> str:
    return f"unknown key {wrong!r}{nearest(wrong, known)} (--cfg job prints every key)"
