"""Weights trained here: a file that says what they are tied to and where they come from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from wmbench.files import whole


def save_trained(path: Path, module: nn.Module, conditions: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Write a network with what it is tied to and where it comes from; whole or not at all."""
    text = json.dumps({"conditions": dict(conditions), "provenance": dict(provenance)})
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    with whole(path) as temporary:
        save_file(tensors, temporary, {"wmbench": text})  # one entry: safetensors writes several in any order


def facts_of(path: Path) -> dict[str, dict[str, Any]]:
    """Conditions and provenance of a file of save_trained; both are empty where the file was written by others.

    Raises:
        ValueError: a damaged file.
    """
    text = "{}"
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                text = (file.metadata() or {}).get("wmbench", text)
        found = json.loads(text)
        return {name: dict(found.get(name, {})) for name in ("conditions", "provenance")}
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError):  # any JSON may stand there
        raise ValueError(f"{path} is damaged: what it says of itself cannot be read; train it again") from None


def check_conditions(path: Path, own: Mapping[str, Any], remedy: str) -> None:
    """Refuse weights that were trained for something else, or that do not say for what.

    Raises:
        ValueError: every condition that differs, and the remedy.
    """
    trained = facts_of(path)["conditions"]
    others = [f"{name} ({trained.get(name)}, here {own[name]})" for name in own if trained.get(name) != own[name]]
    if others:
        raise ValueError(f"{path} was trained with another {', another '.join(others)}{remedy}")
