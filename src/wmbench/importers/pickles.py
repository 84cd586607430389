"""Reads torch checkpoints that pickle whole modules, without running anything that they ask for.

A pickle is a program for a small stack machine. This one has no way to import or to call: a class or function of the file
is a `Name`, written down and never looked up; an object of it is a `Stub` that keeps what it was given; a tensor is read
from the archive when it is asked for. Only names that a DINO-WM checkpoint holds are let in.
"""

import math
import pickletools
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
STUBS = {
    *(f"models.vit.{name}" for name in ("ViTPredictor", "Transformer", "Attention", "FeedForward")),
    *(f"models.vqvae.{name}" for name in ("VQVAE", "Quantize", "Encoder", "Decoder", "ResBlock")),
    "models.proprio.ProprioceptiveEmbedding",
    "torch.device",
    *(f"builtins.{name}" for name in ("list", "tuple", "int", "float")),
}
# Layers, optimisers and their wrapper change from release to release; a Stub of any class is as harmless as of another.
STUB_PREFIXES = ("torch.nn.modules.", "torch.optim.", "accelerate.", "models.decoder.transposed_conv.")
LIMIT = 2**63  # of sizes and offsets
ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, struct.error)


class Name(str):
    """A class or function that the file names, such as models.vit.Attention."""


@dataclass(eq=False)
class Stub:
    """An object of a class that we do not have or do not trust: what it was made from, and nothing else."""

    name: Name
    args: tuple[Any, ...]
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Storage:
    archive: zipfile.ZipFile
    member: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that is still in the file; size and stride are non-negative and equally long."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        """Read the tensor to the CPU, from whichever device it was saved on.

        Raises:
            ValueError: the file ends before it, or it reaches beyond its own storage.
        """
        storage, place = self.storage, f"{self.storage.archive.filename}: tensor {self.storage.member}"
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True))
        if not 0 < math.prod(self.size) <= storage.numel or last >= storage.numel:
            raise ValueError(
                f"{place} of size {self.size}, stride {self.stride} and offset {self.offset} does not lie within its "
                f"storage of {storage.numel} elements; the file is damaged or made to mislead"
            )
        data = bytearray(_member(storage.archive, storage.member, storage.numel * storage.dtype.itemsize))
        return torch.frombuffer(data, dtype=storage.dtype).as_strided(self.size, self.stride, self.offset).clone()


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
    byteorder = _member(archive, f"{folder}byteorder") if has_byteorder else b"little"
    if byteorder != sys.byteorder.encode():
        raise ValueError(f"{path} was saved with the byte order {byteorder!r}; this machine's is {sys.byteorder}")

    def storage(pid: Any) -> Storage:
        match pid:
            case ("storage", Name() as kind, str(key), str(), int(numel)) if kind in DTYPES and 0 <= numel < LIMIT:
                return Storage(archive, f"{folder}data/{key}", DTYPES[kind], numel)
        raise ValueError("its pickle refers to something other than a tensor's storage")

    pickle = _member(archive, pickles[0])
    try:
        content = _run(pickle, storage)
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
        ValueError: an object that is no torch module, or an entry of one that is no tensor.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, part in submodules(module).items():
        hidden = part.state["_non_persistent_buffers_set"]
        for name, stored in [*part.state["_parameters"].items(), *part.state["_buffers"].items()]:
            if stored is None or name in hidden:
                continue
            if not isinstance(stored, StoredTensor):
                raise ValueError(f"{prefix}.{name} of a {module.name} is no tensor")
            tensors[f"{prefix}.{name}".lstrip(".")] = stored.read()
    return tensors


def _run(pickle: bytes, storage: Callable[[Any], Storage]) -> Any:
    """Run the stack machine, with the instructions that torch.save writes (protocol 2) and no others."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    arg: Any
    for opcode, arg, _ in pickletools.genops(pickle):
        match opcode.name:
            case "PROTO":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(arg)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                start = len(stack) - int(opcode.name[-1])
                stack[start:] = [tuple(stack[start:])]
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "MARK":
                marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "SETITEM" | "SETITEMS":
                items = pop_to_mark() if opcode.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                target = stack[-1].entries if isinstance(stack[-1], Stub) else stack[-1]
                _fill(target, zip(items[::2], items[1::2], strict=True))
            case "APPEND" | "APPENDS":
                items = pop_to_mark() if opcode.name == "APPENDS" else [stack.pop()]
                target = stack[-1].elements if isinstance(stack[-1], Stub) else stack[-1]
                if type(target) is not list:
                    raise ValueError(f"it appends to a {type(target).__name__}")
                target += items
            case "GLOBAL":
                stack.append(_name(arg))
            case "BINPERSID":
                stack.append(storage(stack.pop()))
            case "NEWOBJ" | "REDUCE":
                args, name = stack.pop(), stack.pop()
                if type(name) is not Name or type(args) is not tuple:
                    raise ValueError(f"it calls a {type(name).__name__}")
                stack.append(_CONSTRUCTORS[name](*args) if name in _CONSTRUCTORS else Stub(name, args))
            case "BUILD":
                state, target = stack.pop(), stack[-1]
                if type(target) is not Stub:
                    raise ValueError(f"it sets attributes of a {type(target).__name__}")
                target.state = state
            case "STOP":
                break
            case other:
                raise ValueError(f"its pickle uses {other}, which torch.save does not write")
    return stack.pop()


def _name(arg: str) -> Name:
    """Module and name of a GLOBAL instruction, if it is one of those that are let in."""
    name = Name(arg.replace("__builtin__ ", "builtins ").replace(" ", "."))
    if name in STUBS or name in DTYPES or name in _CONSTRUCTORS or name.startswith(STUB_PREFIXES):
        return name
    raise ValueError(f"it names {name}, which no DINO-WM checkpoint needs and which could run code")


def _fill(target: Any, pairs: Iterable[Any]) -> dict[Any, Any]:
    """Put entries into a dict; keys are of types whose hash is a constant amount of work."""
    if type(target) is not dict:
        raise ValueError(f"it sets items of a {type(target).__name__}")
    for key, value in pairs:
        if not isinstance(key, str | int | float | StoredTensor):
            raise ValueError(f"it uses a {type(key).__name__} as a key")
        target[key] = value
    return target


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    numbers = (offset, *size, *stride)
    whole = all(isinstance(number, int) and 0 <= number < LIMIT for number in numbers)
    if type(storage) is not Storage or not whole or len(size) != len(stride):
        raise ValueError("a tensor in it has no storage, or an impossible size")
    return StoredTensor(storage, offset, size, stride)


_CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda pairs=(): _fill({}, pairs),
    "collections.defaultdict": lambda factory: {},
    "builtins.set": lambda items: set(_fill({}, ((item, None) for item in items))),
    "builtins.dict": lambda pairs=(): _fill({}, pairs),
    "torch.Size": lambda dims: tuple(dims),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: data,
}


def _member(archive: zipfile.ZipFile, name: str, size: int | None = None) -> bytes:
    """Find a file in the archive, stored as torch does it (a compressed one could grow without bound)."""
    place = f"{archive.filename}: {name}"
    try:
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or size not in (None, info.file_size):
            raise ValueError(f"it holds {info.file_size} bytes, compressed or not those that its tensor has")
        return archive.read(info)
    except (KeyError, *ZIP_ERRORS) as error:
        raise ValueError(f"{place} is missing or damaged ({error}); download the file again") from None
