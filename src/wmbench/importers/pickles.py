"""Reads torch checkpoints that pickle whole modules, without running anything that they ask for.

stack_machine.py tells how; a tensor is read from the archive when it is asked for.
"""

import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from torch import Tensor

from wmbench.importers.stack_machine import Name, Stub, run
from wmbench.importers.stored_tensors import DTYPES, LIMIT, ZIP_ERRORS, Storage, StoredTensor, read_member

MOST_USES = 100  # of one storage: tied layers have a name each


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the dict in a .pth file, with Stubs for its objects and StoredTensors for its tensors.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a name that no DINO-WM checkpoint holds, a damaged or truncated file, or another kind of file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        raise ValueError(
            f"{path} is no checkpoint of torch 1.6 or later, or is truncated ({error}); download it again, or save it anew "
            "with the code that it came from"
        ) from None
    pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{path} is a zip file without one data.pkl in its only folder: no checkpoint of torch's")
    folder = pickles[0].removesuffix("data.pkl")
    has_byteorder = f"{folder}byteorder" in archive.namelist()  # torch 2.1 and later
    byteorder = read_member(archive, f"{folder}byteorder") if has_byteorder else b"little"
    if byteorder != sys.byteorder.encode():
        raise ValueError(f"{path} was saved with the byte order {byteorder!r}; this machine's is {sys.byteorder}")

    def storage(pid: Any) -> Storage:
        match pid:
            case ("storage", Name() as kind, str(key), str(), int(numel)) if kind in DTYPES and 0 <= numel < LIMIT:
                return Storage(archive, f"{folder}data/{key}", DTYPES[kind], numel)
        raise ValueError("its pickle refers to something other than a tensor's storage")

    pickle = read_member(archive, pickles[0])
    try:
        content = run(pickle, storage)
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: its pickle makes no sense ({type(error).__name__}: {error})") from None
    except ValueError as error:
        raise ValueError(f"{path} is refused, and nothing in it was run: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} instead of a dict of modules")
    return content


def submodules(module: Stub) -> dict[str, Stub]:
    """A pickled torch module and all within it by their dotted names; its own is empty.

    Raises:
        ValueError: an object that is no torch module, or one that occurs twice.
    """
    found: dict[str, Stub] = {}
    pending, seen = [("", module)], set[int]()
    while pending:
        name, current = pending.pop()
        match current:
            case Stub(
                state={
                    "_parameters": dict(),
                    "_buffers": dict(),
                    "_modules": dict(children),
                    "_non_persistent_buffers_set": set(),
                }
            ) if id(current) not in seen:
                pass
            case _:
                raise ValueError(f"{name or 'the whole'} of a {module.name} is no torch module, or occurs twice")
        found[name] = current
        seen.add(id(current))
        pending += [(f"{name}.{child}".lstrip("."), children[child]) for child in children if children[child] is not None]
    return found


def state_dict(module: Stub) -> dict[str, Tensor]:
    """What torch's state_dict would give for a pickled module: parameters and persistent buffers by their dotted names.

    Raises:
        ValueError: an object that is no torch module, an entry of one that is no tensor, or one storage under more names
            than a file needs, which could fill the memory.
    """
    tensors: dict[str, Tensor] = {}
    uses: Counter[str] = Counter()
    for prefix, part in submodules(module).items():
        hidden = part.state["_non_persistent_buffers_set"]
        for name, stored in [*part.state["_parameters"].items(), *part.state["_buffers"].items()]:
            if stored is None or name in hidden:
                continue
            if not isinstance(stored, StoredTensor):
                raise ValueError(f"{prefix}.{name} of a {module.name} is no tensor")
            uses[stored.storage.member] += 1
            if uses[stored.storage.member] > MOST_USES:
                raise ValueError(f"{prefix}.{name} of a {module.name} shares one storage with {MOST_USES} others")
            tensors[f"{prefix}.{name}".lstrip(".")] = stored.read()
    return tensors
