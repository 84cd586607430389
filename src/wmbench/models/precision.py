"""Faster rollouts by switches that a result names: TF32, bf16, torch.compile. Training has its own."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.base import Predictor
from wmbench.models.world_model import WorldModel

PRECISIONS = ("fp32", "tf32", "bf16")


class Bf16Predictor(Predictor):
    """A predictor whose matrix products are bf16 while what it adds up stays fp32; for inference.

    The linear layers' weights are rounded in place, once.
    """

    def __init__(self, predictor: Predictor):
        super().__init__()
        self.predictor = predictor
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


def set_precision(model: WorldModel, precision: str, compiled: bool) -> None:
    """Make a trained model's predictions faster, for planning; its encoder stays as it is.

    Args:
        precision: `fp32`; `tf32` rounds the factors of matrix products to 10 bits, on CUDA GPUs that can; `bf16` to 7.
        compiled: let torch.compile fuse what lies between the products: a minute at first, per shape of a rollout.

    Raises:
        ValueError: a precision that there is not, or not on this device.
    """
    device = next(model.parameters()).device
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if precision == "tf32":
        if device.type != "cuda":
            raise ValueError(f"precision=tf32 needs a CUDA GPU, and this is {device.type}; use fp32 or bf16")
        torch.set_float32_matmul_precision("high")
    if precision == "bf16":
        model.predictor = Bf16Predictor(model.predictor)
    if compiled:
        model.predictor.step = torch.compile(model.predictor.step)  # type: ignore[method-assign]
