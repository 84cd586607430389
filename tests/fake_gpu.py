"""A GPU that is not there: tensors of cuda:0 have a device, a type and a shape, and no numbers (PyTorch's FakeTensorMode).

As on a real one, an operation on tensors of two devices or on products of two types fails, and so does asking for a number,
for which training would have to wait, or for numpy's view of what is not on the CPU. What is on the CPU is seen as zeros.
PyTorch's backward passes ask the driver for streams, so a walk through the graph takes their place.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import get_gradient_edge
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda:0")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution")


@cache
def asks_for_a_driver() -> bool:
    """Whether a tensor cannot be moved to a GPU that is not there, as in torch 2.6; newer ones that cannot are a failure."""
    if torch.torch_version.TorchVersion(torch.__version__) >= (2, 14):
        return False
    outside = torch.zeros(1)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            outside.to(GPU)
    except RuntimeError:
        return True
    return False


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Inside, cuda:0 is there; tensors that come in from outside are of the CPU."""
    if asks_for_a_driver():
        pytest.skip(f"the fake tensors of torch {torch.__version__} ask for a driver")
    own_numpy = Tensor.numpy

    def numpy(tensor: Tensor, **options: Any) -> np.ndarray:
        if not isinstance(tensor, FakeTensor):
            return own_numpy(tensor, **options)
        if tensor.device.type != "cpu" or tensor.requires_grad or tensor.dtype == torch.bfloat16:
            raise TypeError(f"numpy sees no tensor of {tensor.dtype} on {tensor.device}")
        return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    def pin_memory(tensor: Tensor) -> Tensor:
        assert tensor.device.type == "cpu", f"a tensor of {tensor.device} cannot be pinned"
        return tensor

    def apply(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """As a module moves, but for parameters that are replaced, since others refer to these tensors."""
        for child in module.children():
            apply(child, change)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(change(parameter.detach()), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else change(buffer)
        return module

    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True), _SameTypes():
        patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
        patch.setattr("torch.cuda.synchronize", lambda device: None)
        patch.setattr("torch.cuda.mem_get_info", lambda device: (10**9, 10**9))
        patch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: None)
        for name in ("memory_allocated", "memory_reserved", "max_memory_allocated"):
            patch.setattr(f"torch.cuda.{name}", lambda device: 0)
        patch.setattr("torch.nn.modules.rnn._VF", SimpleNamespace(gru_cell=gru_cell, lstm_cell=lstm_cell))
        patch.setattr(nn.Module, "_apply", apply)
        patch.setattr(Tensor, "numpy", numpy)
        patch.setattr(Tensor, "pin_memory", pin_memory)
        patch.setattr(Tensor, "backward", lambda loss: gradients(loss))
        patch.setattr(torch.autograd, "grad", lambda output, inputs: gradients(output, as_list(inputs)))
        yield


def gru_cell(x: Tensor, h: Tensor, *weights: Tensor) -> Tensor:
    """PyTorch's, from its own formula: the fused one knows no fake tensors."""
    of_x, of_h = (linear(given, weights[k], weights[k + 2]).chunk(3, -1) for k, given in enumerate((x, h)))
    reset, update = ((of_x[k] + of_h[k]).sigmoid() for k in range(2))
    new = (of_x[2] + reset * of_h[2]).tanh()
    return new + update * (h - new)


def lstm_cell(x: Tensor, state: Sequence[Tensor], *weights: Tensor) -> tuple[Tensor, Tensor]:
    """Likewise."""
    h, c = state
    i, f, g, o = (linear(x, weights[0], weights[2]) + linear(h, weights[1], weights[3])).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


class _SameTypes(TorchDispatchMode):
    """Refuses products of two types, which FakeTensorMode lets through."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in PRODUCTS:
            kinds = {x.dtype for x in args if isinstance(x, Tensor)}
            assert len(kinds) == 1, f"{func} of {' and '.join(map(str, kinds))}"
        return func(*args, **(kwargs or {}))


def as_list(inputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [inputs] if isinstance(inputs, Tensor) else list(inputs)


def gradients(output: Tensor, inputs: Iterable[Tensor] = ()) -> tuple[Tensor, ...]:
    """Gradients of a number: of the inputs, or, where there are none, left with every parameter that it depends on."""
    wanted = [get_gradient_edge(tensor) for tensor in inputs]
    root = get_gradient_edge(output)
    assert output.numel() == 1, "only a number has a gradient"
    arrived: dict[Any, dict[int, Tensor]] = {root.node: {root.output_nr: torch.ones_like(output)}}
    with torch.no_grad():
        for node in reversed(_inputs_first(root.node)):
            given = arrived.get(node, {})
            if hasattr(node, "variable"):  # a parameter, where the graph ends
                if not wanted:
                    _keep(node.variable, given[0])
                continue
            slots = [_fit(given.get(k), expected) for k, expected in enumerate(node._input_metadata)]
            passed = getattr(node, "apply", node)(*slots)  # of our own functions; of PyTorch's
            for gradient, (following, slot) in zip(as_tuple(passed), node.next_functions, strict=True):
                if following is not None and gradient is not None:
                    there = arrived.setdefault(following, {})
                    gradient = gradient.sum_to_size(following._input_metadata[slot].shape)
                    there[slot] = there[slot] + gradient if slot in there else gradient
    return tuple(arrived[edge.node][edge.output_nr] for edge in wanted)


def as_tuple(passed: Any) -> tuple:
    return passed if isinstance(passed, tuple) else (passed,)


def _inputs_first(root: Any) -> list[Any]:
    """All nodes of a graph, each behind those that it takes its gradient on to."""
    order: list[Any] = []
    seen, waiting = {root}, [(root, iter(root.next_functions))]
    while waiting:
        node, rest = waiting[-1]
        following = next((n for n, _ in rest if n is not None and n not in seen), None)
        if following is None:
            order.append(node)
            waiting.pop()
        else:
            seen.add(following)
            waiting.append((following, iter(following.next_functions)))
    return order


def _fit(gradient: Tensor | None, expected: Any) -> Tensor | None:
    """A gradient in its tensor's shape and type, as PyTorch hands it on."""
    if gradient is None:
        return None
    assert gradient.device == expected.device, f"a gradient on {gradient.device} of a tensor on {expected.device}"
    return gradient.sum_to_size(expected.shape).to(expected.dtype)


def _keep(parameter: Tensor, gradient: Tensor) -> None:
    gradient = gradient.sum_to_size(parameter.shape).to(parameter.dtype)
    assert gradient.device == parameter.device, f"a gradient on {gradient.device} of a weight on {parameter.device}"
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
