"""Weights trained here: a file that says what they are tied to and where they come from."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from wmbench.encoders.weights import contents
from wmbench.files import whole


def save_trained(path: Path, module: nn.Module, conditions: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Write a network with what it is tied to and where it comes from; whole or not at all."""
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    text = json.dumps({"conditions": dict(conditions), "provenance": dict(provenance), "crc32": checksum(tensors)})
    with whole(path) as temporary:
        save_file(tensors, temporary, {"wmbench": text})  # one entry: safetensors writes several in any order


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of tensors' names and bytes."""
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(contents(tensors[name]), zlib.crc32(name.encode(), crc))
    return crc


def facts_of(path: Path) -> dict[str, dict[str, Any]]:
    """Conditions and provenance of a file of save_trained; both are empty where the file was written by others.

    Raises:
        ValueError: a damaged file.
    """
    try:
        found = _said(path)
        return {name: dict(found.get(name, {})) for name in ("conditions", "provenance")}
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError):  # any JSON may stand there
        raise ValueError(f"{path} is damaged: what it says of itself cannot be read; train it again") from None


def _said(path: Path) -> Any:
    """What a file of weights says of itself."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get("wmbench", "{}"))


def check_trained(path: Path, state: Mapping[str, Tensor], own: Mapping[str, Any], remedy: str) -> None:
    """Refuse weights that are not those that were written, that were trained for something else, or do not say for what.

    Raises:
        ValueError: damage, or every condition that differs, and the remedy.
    """
    trained = facts_of(path)["conditions"]
    if _said(path).get("crc32", written := checksum(state)) != written:  # files of earlier versions have none
        raise ValueError(f"{path} is damaged (it has another checksum than when it was written){remedy}")
    others = [f"{name} ({trained.get(name)}, here {own[name]})" for name in own if trained.get(name) != own[name]]
    if others:
        raise ValueError(f"{path} was trained with another {', another '.join(others)}{remedy}")
