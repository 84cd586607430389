"""What a run keeps on disk: written whole or not at all, and refused by name where it is damaged."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from wmbench.encoders.matched import Matched
from wmbench.encoders.trained import checksum
from wmbench.encoders.weights import check_state, not_finite
from wmbench.files import parse_json, regular, whole
from wmbench.machine import free_disk, size
from wmbench.models.world_model import WorldModel
from wmbench.runs.trust import plain

RESUME = "resume.safetensors"
ANEW = "delete it to train from the beginning"


@contextmanager
def saving(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends.

    Raises:
        OSError: no room or no permission; the file before it is intact.
    """
    try:
        with whole(path) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"{path} cannot be written ({reason}; {size(free_disk(path))} free there); what was saved before is intact, and "
            "the same command goes on from it once there is room"
        ) from error


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors with a checksum, the only metadata: safetensors writes several in any order."""
    with saving(path) as temporary:
        save_file(tensors, temporary, {"crc32": str(checksum(tensors))})


def save_mapping(path: Path, mapping: Mapping[str, Any]) -> None:
    """Write a .yaml or .json file."""
    text = (
        json.dumps(mapping, indent=2) + "\n" if path.suffix == ".json" else OmegaConf.to_yaml(OmegaConf.create({**mapping}))
    )
    with saving(path) as temporary:
        temporary.write_text(text)


def load_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Load tensors and metadata of a file.

    Raises:
        ValueError: a damaged file; the message ends with the remedy.
    """
    regular(path)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); {remedy}") from None
    if metadata.get("crc32", written := str(checksum(tensors))) != written:  # files of earlier versions have none
        raise ValueError(f"{path} is damaged (it has another checksum than when it was written); {remedy}")
    return tensors, metadata


def load_mapping(path: Path, remedy: str, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """Load a .yaml or .json file whose outermost level is named values.

    Args:
        needed: names without which it is of no use.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file; both messages end with the remedy.
    """
    try:
        text = regular(path).read_text()
        found = parse_json(text) if path.suffix == ".json" else plain(text)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; {remedy}") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}); {remedy}") from None
    lacking = [name for name in needed if not isinstance(found, dict) or name not in found]
    if not isinstance(found, dict) or not found or lacking:
        raise ValueError(f"{path} is damaged (it lacks {', '.join(lacking) or 'everything'}); {remedy}")
    return found  # type: ignore[return-value]


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without a world model's frozen encoder, which is rebuilt from its own source."""
    is_rebuilt = isinstance(model, WorldModel) and model.encoder.frozen
    encoder = "encoder.encoder." if is_rebuilt and isinstance(model.encoder, Matched) else "encoder."
    return {n: t.contiguous() for n, t in model.state_dict().items() if not (is_rebuilt and n.startswith(encoder))}


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, buffers and the optimiser's state, by name."""
    tensors = {f"model.{name}": tensor for name, tensor in own_state(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    return tensors


def save_resume(run: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, name: str = RESUME) -> None:
    """Everything that the next step depends on: weights, optimiser, random state.

    Raises:
        ValueError: numbers that are not finite, which nothing could go on from.
        OSError: no room; the file before it is intact.
    """
    tensors, device = training_state(model, optimizer), next(model.parameters()).device
    if bad := not_finite(tensors):
        raise ValueError(f"{run / name} is not written: {bad[0]} is not finite after step {step}")
    tensors["rng.cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(device)
    tensors["crc32"] = torch.tensor(checksum(tensors))
    path = run / name
    with saving(path) as temporary:
        save_file(tensors, temporary, {"step": str(step)})
        if path.exists():
            path.replace(_before(path))


def load_resume(run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, name: str = RESUME) -> int:
    """Put back what save_resume wrote last or, where that file is damaged, the time before, with a note.

    Returns:
        The number of steps done, 0 where nothing was saved.

    Raises:
        ValueError: files that are damaged, of another model, or not finite.
    """
    path, device = run / name, next(model.parameters()).device
    if (found := _newest_state(path)) is None:
        return 0
    tensors, step = found
    weights = {n.removeprefix("model."): tensor for n, tensor in tensors.items() if n.startswith("model.")}
    shapes = {name: tensor.shape for name, tensor in own_state(model).items()}
    check_state(f"{path} does not fit this model", weights, shapes, f"; {ANEW}")
    model.load_state_dict(weights, strict=False)  # strict by the check above, up to the frozen encoder
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, kind = key.split(".")
            state.setdefault(int(index), {})[kind] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["rng.cpu"])
    if device.type == "cuda" and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"], device)
    return step


def _before(path: Path) -> Path:
    """Where the state that was saved before the newest one is kept."""
    return path.with_stem(f"{path.stem}_before")


def _newest_state(path: Path) -> tuple[dict[str, Tensor], int] | None:
    """Tensors and step of the newest state that can be read; one that takes a damaged one's place gets its name.

    Raises:
        ValueError: there are states, and none that can be read.
    """
    before = _before(path)
    if path.exists():
        try:
            return _read_state(path)
        except ValueError as error:
            if not before.exists():
                raise
            print(f"note: {error}; or go on, as now, from the state saved before it", file=sys.stderr)
    elif not before.exists():
        return None
    found = _read_state(before)
    before.replace(path)
    return found


def _read_state(path: Path) -> tuple[dict[str, Tensor], int]:
    tensors, metadata = load_tensors(path, ANEW)
    written = tensors.pop("crc32", None)  # states of earlier versions have none
    if bad := not_finite(tensors):
        raise ValueError(f"{path} holds numbers that are not finite ({bad[0]}), and nothing can go on from them; {ANEW}")
    if not metadata.get("step", "").isdecimal() or "rng.cpu" not in tensors:
        raise ValueError(f"{path} is no training state (it lacks the step or the random state); {ANEW}")
    for name in tensors:
        if name.startswith("optimizer.") and not re.fullmatch(r"optimizer\.\d+\.\w+", name):
            raise ValueError(f"{path} is damaged ({name!r} is no number of the optimiser's); {ANEW}")
    if written is not None and not (written.dtype == torch.int64 and written.tolist() == checksum(tensors)):
        raise ValueError(f"{path} is damaged (it has another checksum than when it was written); {ANEW}")
    return tensors, int(metadata["step"])


def steps_done(run: Path, name: str = RESUME) -> int:
    """Steps after which the training can go on.

    Raises:
        ValueError: a damaged file, and none before it.
    """
    path = run / name
    problem: ValueError | None = None
    for place in (path, _before(path)):
        if place.exists():
            try:
                with safe_open(regular(place), "pt") as file:
                    return int((file.metadata() or {})["step"])
            except (SafetensorError, KeyError, ValueError) as error:
                problem = problem or ValueError(f"{place} is damaged or truncated ({error}); {ANEW}")
    if problem:
        raise problem
    return 0
