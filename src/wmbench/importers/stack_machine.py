"""A pickle is a program for a small stack machine. This one has no way to import or to call.

A class or function of the file is a `Name`, written down and never looked up; an object of it is a `Stub` that keeps what
it was given. Only names that a DINO-WM checkpoint holds are let in.
"""

import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from wmbench.importers.stored_tensors import DTYPES, LIMIT, Storage, StoredTensor

STUBS = {
    *(f"models.vit.{name}" for name in ("ViTPredictor", "Transformer", "Attention", "FeedForward")),
    *(f"models.vqvae.{name}" for name in ("VQVAE", "Quantize", "Encoder", "Decoder", "ResBlock")),
    "models.proprio.ProprioceptiveEmbedding",
    "torch.device",
    *(f"builtins.{name}" for name in ("list", "tuple", "int", "float")),
}
# Layers, optimisers and their wrapper change from release to release; a Stub of any class is as harmless as of another.
STUB_PREFIXES = ("torch.nn.modules.", "torch.optim.", "accelerate.", "models.decoder.transposed_conv.")
VALUES: dict[str, Callable[[Any], Any]] = {  # instructions that put a value on the stack, given their argument
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), lambda arg: arg),
}


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


def run(pickle: bytes, storage: Callable[[Any], Storage]) -> Any:
    """Run a pickle's instructions, those that torch.save writes (protocol 2) and no others; returns what it describes."""
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
            case value if value in VALUES:
                stack.append(VALUES[value](arg))
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
