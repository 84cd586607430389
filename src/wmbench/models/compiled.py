"""Rollouts through torch.compile, one graph for each shape of a step."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only, tree_structure

from wmbench.models.base import Around, Predictor


class CompiledPredictor(Around):
    """A predictor whose steps are compiled, for any batch; for inference.

    A step that cannot be compiled whole ends the program: what is called compiled never runs as it is written.

    Args:
        backend: torch.compile's.
    """

    def __init__(self, predictor: Predictor, backend: str | Callable[..., Any] = "inductor"):
        super().__init__(predictor)
        self.backend = backend
        self._steps: dict[Any, Callable[[Any, Tensor], tuple[Tensor, Any]]] = {}

    def step(self, state: Any, action: Float[Tensor, "BS A"]) -> tuple[Float[Tensor, "BS N D"], Any]:
        state, action = tree_map_only(Tensor, _own, (state, action))
        tensors = [leaf for leaf in tree_leaves((state, action)) if isinstance(leaf, Tensor)]
        # The compiler takes equal sizes for the same size, and a size of one for a constant.
        shapes = tuple((x.shape[1:], len(x) == 1, len(x) == len(action), x.dtype, x.requires_grad) for x in tensors)
        kind = shapes, repr(tree_structure(state)), torch.is_grad_enabled()  # torch 2.6 hashes no structure
        if kind not in self._steps:
            self._steps[kind] = self._compiled()
        for tensor in tensors:
            if len(tensor) > 1:
                torch._dynamo.mark_dynamic(tensor, 0)
        return self._steps[kind](state, action)

    def _compiled(self) -> Callable[[Any, Tensor], tuple[Tensor, Any]]:
        def step(state: Any, action: Tensor) -> tuple[Tensor, Any]:
            return self.predictor.step(state, action)

        step.__code__ = step.__code__.replace()  # the compiler's limit of 8 graphs counts those of one code object
        return torch.compile(step, fullgraph=True, backend=self.backend)


def as_written() -> AbstractContextManager[Any]:
    """Context in which nothing is compiled: for what is only tried."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _own(tensor: Tensor) -> Tensor:
    """A tensor that is no view: the compiler also asks what a view is of."""
    return tensor.clone(memory_format=torch.contiguous_format) if tensor._is_view() else tensor
