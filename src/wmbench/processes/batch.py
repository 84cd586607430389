"""A batch whose rows are spread over processes: its means, its noise, and layers that feel the whole of it.

Each process takes as many rows, its loss is the mean over them, and gradients are averaged over processes. So a number that
all processes share has as its gradient the mean of the gradients that they have for it.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wmbench.processes.group import num_processes, rank


def mean_of_all(x: Tensor) -> Tensor:
    """The mean of what each process gives, with gradients."""
    return x if num_processes() == 1 else _MeanOfAll.apply(x)


class _MeanOfAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _mean(x)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return _mean(gradient[0])


def _mean(x: Tensor) -> Tensor:
    total = x.contiguous().clone()
    dist.all_reduce(total)
    return total / num_processes()


def all_rows(own: Tensor) -> Tensor:
    """Every process's rows, without gradients."""
    if num_processes() == 1:
        return own
    parts = [torch.empty_like(own) for _ in range(num_processes())]
    dist.all_gather(parts, own.detach().contiguous())
    return torch.cat(parts)


def all_rows_with_gradients(own: Float[Tensor, "B D"]) -> Float[Tensor, "P D"]:
    """Every process's rows, with gradients."""
    if num_processes() == 1:
        return own
    before, after = rank() * len(own), (num_processes() - 1 - rank()) * len(own)
    return num_processes() * mean_of_all(nn.functional.pad(own, (0, 0, before, after)))


def from_first(x: Tensor) -> Tensor:
    """The first process's numbers: what all draw, and must have drawn alike, though each GPU has noise of its own."""
    if num_processes() > 1:
        dist.broadcast(x, 0)
    return x


def with_noise(draw: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What `draw` makes of the rows of x with noise, on the CPU with that which one process would draw for them."""
    if num_processes() == 1 or x.is_cuda:
        return draw(x)
    everyone = x.repeat(num_processes(), *[1] * (x.dim() - 1))
    return draw(everyone)[rank() * len(x) :][: len(x)]


def batch_norm(layer: _BatchNorm, x: Tensor) -> Tensor:
    """What a layer of batch normalisation does, its statistics those of all rows."""
    if not layer.training:
        return type(layer).forward(layer, x)
    axes, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
    wide = x.float()
    mean = mean_of_all(wide.mean(axes))
    centred = wide - mean.view(shape)
    variance = mean_of_all(centred.square().mean(axes))
    if layer.running_mean is not None and layer.running_var is not None and layer.num_batches_tracked is not None:
        layer.num_batches_tracked += 1
        rate = 1 / int(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
        count = num_processes() * x.numel() / x.shape[1]
        with torch.no_grad():
            layer.running_mean.lerp_(mean, rate)
            layer.running_var.lerp_(variance * count / (count - 1), rate)
    normal = centred * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        normal = normal * layer.weight.view(shape) + layer.bias.view(shape)
    return normal.to(x.dtype)
