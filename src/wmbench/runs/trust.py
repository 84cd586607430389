"""What the files of a run may ask for. Nobody knows who wrote them, and three things in them could reach outside.

A `_target_` is imported and called: it must be a class that conf/ names in the same group, exactly, or named so before. A
`${...}` could read the environment: it must be a key of the same file. A release is downloaded: it must be one of conf/.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wmbench.files import DEEPEST, TOO_DEEP, regular, shipped

MOVED = {"wmbench.models.predictor.FrameCausalViT": "wmbench.models.vit.FrameCausalViT"}  # a run names classes by these
# Groups of conf/ whose classes a run or a result is made of.
GROUPS = ("encoder", "predictor", "training", "decoder", "distance", "policy", "planner", "objective")
RELEASE = "wmbench.encoders.weights.Release"
LARGEST = 2**17  # letters of a file
KEY = re.compile(r"\$\{(\.*)([\w.-]+)\}")


def plain(text: str) -> Any:
    """Read YAML as mappings, lists and plain values, with another key's value in place of `${KEY}`.

    Raises:
        ValueError: damage, a `${...}` that is more than a key of the same text, or what could fill the memory.
    """
    if len(text) > LARGEST:
        raise ValueError(f"{len(text):,} letters are more than the {LARGEST:,} that such a file may have")
    depth = 0
    try:
        for event in yaml.parse(text):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"it repeats *{event.anchor}, which could fill the memory; write its value out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(TOO_DEEP)
        content = OmegaConf.to_container(OmegaConf.create(text))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(str(error)) from None
    return _resolved(content, content, ())


def read_plain(path: Path) -> Any:
    """Read a YAML file as `plain` does; its errors name the file."""
    try:
        return plain(regular(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as YAML of plain values: {' '.join(str(error).split())}") from None


def _resolved(node: Any, root: Any, path: tuple[str, ...]) -> Any:
    if isinstance(node, dict):
        return {key: _resolved(child, root, (*path, str(key))) for key, child in node.items()}
    if isinstance(node, list):
        return [_resolved(child, root, (*path, str(place))) for place, child in enumerate(node)]
    if not isinstance(node, str | int | float | None):
        raise ValueError(f"{'.'.join(path)} ({node!r}) is a {type(node).__name__}, and no text or number")
    if isinstance(node, int) and abs(node) >= 2**64:
        raise ValueError(f"{'.'.join(path)} is a number of {node.bit_length():,} bits, and at most 64 are read")
    if not isinstance(node, str) or "${" not in node:
        return node
    found = None
    if match := KEY.fullmatch(node):
        found, dots = root, match[1]
        for name in (*(path[: -len(dots)] if dots else ()), *match[2].split(".")):
            found = found.get(name) if isinstance(found, dict) else None
    if found is None or isinstance(found, dict | list) or "${" in str(found):
        raise ValueError(
            f"{'.'.join(path)} ({node}) asks for more than a key of this file, and nothing else is looked up; write the "
            "value itself"
        )
    return found


def renamed(node: Any) -> Any:
    """A configuration with the names that classes have today."""
    if isinstance(node, dict):
        return {key: renamed(MOVED.get(str(value), value) if key == "_target_" else value) for key, value in node.items()}
    return node


def check_names(config: Any, group: str, where: str, remedy: str) -> None:
    """Refuse a part of a run's configuration that names code, or an address, which conf/GROUP does not name.

    Args:
        where: the file, for the message, which ends with the remedy.

    Raises:
        ValueError: a class, an address or a word of Hydra's that a run's file may not name.
    """
    classes = _classes(group)
    for place, node in _mappings(config, group):
        for word in (name for name in node if re.fullmatch("_.*_", str(name))):
            shown = f"{where}: {place}.{word} ({node[word]})"
            if word not in ("_target_", "_partial_"):
                raise ValueError(f"{shown} is no setting of a run, and nothing was run; {remedy}")
            if word == "_target_" and str(node[word]) not in classes:
                raise ValueError(
                    f"{shown} is none of the classes that conf/{group} names, and a run may name no other: nothing was run; "
                    f"{remedy}, or name a class of your own in a file of conf/{group} or of the folder --config-dir"
                )
        if node.get("_target_") == RELEASE and not _is_released(node, group):
            raise ValueError(
                f"{where}: {place} ({node.get('url')}) is no release that conf/{group} names, and nothing else is "
                f"downloaded for a run; {remedy}"
            )


def _mappings(node: Any, place: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Every mapping in a configuration, by its dotted place."""
    if isinstance(node, Mapping):
        yield place, dict(node)
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield from _mappings(child, f"{place}.{name}")


def targets(config: Any) -> list[str]:
    """Every class that a configuration names."""
    return [str(node["_target_"]) for _, node in _mappings(config, "") if "_target_" in node]


def _classes(group: str) -> set[str]:
    return {name for text in _texts(group) for name in re.findall(r"^ *_target_: *[\"']?([\w.]+)", text, re.MULTILINE)}


def _texts(group: str) -> list[str]:
    """The files of a group: of conf/, and of the folders that a command line adds to it."""
    folders = {shipped("conf")}
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders |= {Path(source.path) for source in sources if source.schema == "file"}
    return [path.read_text() for folder in folders for path in folder.glob(f"{group}/*.yaml")] if group in GROUPS else []


def _is_released(node: Mapping[str, Any], group: str) -> bool:
    given = _place(node)
    return any(re.fullmatch(pattern, given) for text in _texts(group) for pattern in _releases(text))


@cache
def _releases(text: str) -> list[str]:
    """Patterns of the releases in a file of conf/: an address that tells a model's name belongs to the file of that name."""
    try:
        places = [_place(node) for _, node in _mappings(yaml.safe_load(text), "") if "url" in node]
    except yaml.YAMLError:  # a mistake in a new file costs that file's encoder alone
        return []
    parts = [[re.escape(part) for part in re.split(r"\$\{.*?\}", place)] for place in places]
    return [first + "".join((r"\1" if n else r"([\w.-]+)") + part for n, part in enumerate(rest)) for first, *rest in parts]


def _place(release: Mapping[str, Any]) -> str:
    """Address of a release, and its name in the cache."""
    url = str(release["url"]) if "url" in release else ""
    return f"{url} {release.get('file') or url.rpartition('/')[2]}"
