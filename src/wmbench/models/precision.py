"""How numbers are rounded on the way: one value, applied as a context and recorded."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.base import Around, Predictor
from wmbench.models.compiled import CompiledPredictor
from wmbench.models.world_model import WorldModel

PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class Precision:
    """What a command computes with; fp32, truly, by default.

    bf16: matrix products of training's losses or planning's rollouts are bf16; what is added up stays fp32.
    tf32: the factors of all other matrix products and of cudnn's convolutions (which PyTorch would round unasked) are
        rounded to 10 bits, on CUDA GPUs that can.
    deterministic: sums are added up in the same order every time also on a GPU, which takes longer; an operation that
        cannot is refused. A CPU with the same number of threads needs no such promise.
    """

    bf16: bool = False
    tf32: bool = False
    deterministic: bool = False

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set the process's switches, and put them back at the end.

        Raises:
            ValueError: an operation that cannot be deterministic where that is asked for.
        """
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        was_deterministic = torch.are_deterministic_algorithms_enabled()
        token = _applied.set(self)
        _switch("high" if self.tf32 else "highest", self.tf32, self.deterministic)
        try:
            yield
        except RuntimeError as error:
            if self.deterministic and "deterministic" in str(error):
                raise ValueError(f"deterministic=true: {str(error).partition('. ')[0]}; leave it false") from error
            raise
        finally:
            _switch(*before, was_deterministic)
            _applied.reset(token)

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """Context in which losses are computed; their backward passes follow by themselves."""
        return torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext()


_applied: ContextVar[Precision | None] = ContextVar("precision", default=None)


def precision_named(name: str, device: torch.device, tf32: bool = False, deterministic: bool = False) -> Precision:
    """The precision of a command.

    Args:
        name: fp32, tf32, bf16, or auto, which is training's: bf16 on a GPU, fp32 elsewhere.
        tf32: round the other products too.
        deterministic: see Precision.

    Raises:
        ValueError: a precision that there is not, or not on this device.
    """
    if name != "auto":
        _check(name)
    if name == "tf32" and device.type != "cuda":
        raise ValueError(f"precision=tf32 needs a CUDA GPU, and this is {device.type}; use fp32 or bf16")
    return Precision(name == "bf16" or (name == "auto" and device.type == "cuda"), tf32 or name == "tf32", deterministic)


def applied_precision(device: torch.device) -> Precision:
    """The precision that is applied; where none is, training's own."""
    return _applied.get() or precision_named("auto", device)


class Bf16Predictor(Around):
    """A predictor whose matrix products are bf16 while what it adds up stays fp32; for inference.

    The linear layers' weights are rounded in place, once.
    """

    def __init__(self, predictor: Predictor):
        super().__init__(predictor)
        for module in predictor.modules():
            if isinstance(module, nn.Linear):
                module.to(torch.bfloat16)

    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        with torch.autocast(z.device.type, torch.bfloat16):
            return self.predictor(z, action).float()

    def begin(self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], num_plans: int) -> Any:
        with torch.autocast(z.device.type, torch.bfloat16):
            return self.predictor.begin(z, past, num_plans)

    def step(self, state: Any, action: Float[Tensor, "BS A"]) -> tuple[Float[Tensor, "BS N D"], Any]:
        with torch.autocast(action.device.type, torch.bfloat16):
            z, state = self.predictor.step(state, action)
        return z.float(), state

    def place(self, z: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B M E"]:
        with torch.autocast(z.device.type, torch.bfloat16):
            return self.predictor.place(z).float()


def set_precision(model: WorldModel, precision: str, compiled: bool) -> None:
    """Make a trained model's predictions faster, for planning; its encoder stays as it is.

    Args:
        precision: of the rollouts; `tf32` is also to be applied, as a command does for its whole run.
        compiled: let torch.compile fuse the operations between products: a minute at first, per shape of a step.

    Raises:
        ValueError: a precision that there is not, or not on this device.
    """
    _check(precision)
    if precision_named(precision, next(model.parameters()).device).bf16:
        model.predictor = Bf16Predictor(model.predictor)
    if compiled:
        model.predictor = CompiledPredictor(model.predictor)


def _check(name: str) -> None:
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}; known: {', '.join(PRECISIONS)}")


def _switch(matmul: str, cudnn: bool, deterministic: bool) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = cudnn
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when it is first used
    if deterministic != torch.are_deterministic_algorithms_enabled():  # for which torch loads its compiler, for seconds
        torch.use_deterministic_algorithms(deterministic)
