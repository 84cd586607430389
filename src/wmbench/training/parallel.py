"""A trainee in several processes: each computes the losses of its rows of a batch, and all take the same step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from wmbench.models.base import Losses
from wmbench.processes.batch import batch_norm
from wmbench.processes.group import num_processes, rank
from wmbench.training.trainee import Trainee


class _Forward(nn.Module):
    """A trainee's losses as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, trainee: Trainee):
        super().__init__()
        self.module, self.losses = trainee.module, trainee.forward

    def forward(self, batch: Any) -> Losses:
        return self.losses(batch)


def over_processes(trainee: Trainee, step: int) -> Callable[[Any], Losses]:
    """The trainee's forward pass; in several processes they begin alike, and its backward pass averages their gradients.

    Args:
        step: from which they go on, for the noise that each GPU draws for itself.
    """
    if num_processes() == 1:
        return trainee.forward
    for layer in trainee.module.modules():
        if isinstance(layer, _BatchNorm):
            layer.forward = partial(batch_norm, layer)  # type: ignore[assignment]
    if trainee.device.type == "cuda" and rank():
        torch.cuda.manual_seed(hash((torch.initial_seed(), step, rank())) % 2**63)
    return DistributedDataParallel(_Forward(trainee), static_graph=True)
