"""Tasks from a file: one of ours, or DINO-WM's plan_targets.pkl, read without running anything in it."""

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wmbench.evaluation.tasks import Tasks, check_states, load

ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")


def read_targets(path: str | Path | None, goal_H: int) -> tuple[Tasks, int]:
    """Read a file's starts and goals, and the blocks between them: the file's own number, if it has one, overrides goal_H.

    Raises:
        FileNotFoundError, ValueError: no file, or one that holds something else.
    """
    if path is None:
        raise ValueError(
            "protocol.goal_source=file needs protocol.goal_file=PATH: plan_targets.pkl of DINO-WM, or a task file"
        )
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no task file {path} (protocol.goal_file)")
    if path.suffix == ".npz":
        return load(path), goal_H
    content = _read_pickle(path)
    try:
        start, goal = (np.asarray(content[name], np.float64) for name in ("state_0", "state_g"))
        blocks = int(content["goal_H"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} lacks what DINO-WM's plan_targets.pkl holds: arrays state_0 and state_g, a number goal_H"
        ) from None
    check_states(path, start, goal)
    if blocks < 1:
        raise ValueError(f"{path}: goal_H ({blocks}) is not positive")
    return Tasks(start, goal, np.arange(len(start))), blocks


class _Ignored:
    """What a torch tensor in the file becomes: recorded actions are not needed."""

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _DType(_Ignored):
    def __init__(self, code: str, *args: Any):
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        if not re.fullmatch(r"[fiub]\d{1,2}", self.code):
            raise ValueError(f"an array of {self.code!r} is not one of numbers")
        return np.dtype(f"{self.order if self.order in '<>' else ''}{self.code}")


class _Array(_Ignored):
    """A numpy array as its pickle describes it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = np.frombuffer(data, dtype.numpy()).reshape(shape, order="F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.value.astype(dtype)


class _Buffer(_Array):
    """The same as protocol 5 writes it. A class and no function, whose attributes a pickle could set."""

    def __init__(self, data: bytes | bytearray, dtype: _DType, shape: tuple[int, ...], order: str):
        self.__setstate__((None, shape, dtype, order == "F", data))


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) == ("numpy", "ndarray"):
            return _Array
        if (module, name) == ("numpy", "dtype"):
            return _DType
        if module in ARRAYS and name in ("_reconstruct", "_frombuffer"):
            return _Array if name == "_reconstruct" else _Buffer
        if module.startswith("torch.") or (module, name) == ("collections", "OrderedDict"):
            return _Ignored
        raise ValueError(f"it names {module}.{name}, which plan_targets.pkl does not need and which could run code")


def _read_pickle(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    try:
        if wide := [arg for code, arg, _ in pickletools.genops(data) if "PUT" in code.name and int(arg or 0) > len(data)]:
            raise ValueError(
                f"it numbers {wide[0]} objects, more than the file has bytes"
            )  # Python would make room for them
        content = _Reader(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        raise ValueError(f"{path} is refused, and nothing in it was run: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} instead of a dict of targets")
    return content
