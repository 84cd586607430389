"""Operations of a run, counted from the products that it asks for, and of a rollout in closed form.

PyTorch's own counter follows which kernels a release has: 2.14 leaves out the CPU's attention that 2.15 counts. The calls
seen here are of its public interface, which stays: a share of the machine's peak means the same under every release.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from wmbench.models.vit import FrameCausalViT

MATRIX_PRODUCTS = ("matmul", "__matmul__", "bmm", "mm")
NOT_COUNTED = ("einsum", "addmm", "baddbmm", "conv1d", "conv3d", "bilinear")


class OperationCounter(TorchFunctionMode):
    """Counts a multiplication with its addition as two, while it is entered.

    A product's gradient costs as much again for each factor that needs one. Attention's weights, which a fused kernel
    computes once more on the way back, count once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in NOT_COUNTED:
            raise NotImplementedError(f"the operations of {name} are not counted yet; add them to benchmarks/operations.py")
        if count := COUNTS.get(name):
            factors = [factor for factor in args[:2] if factor.requires_grad and torch.is_grad_enabled()]
            self.total += count(result, *args, **(kwargs or {})) * (1 + len(factors))
        return result


def operations_of(run: Callable[[], Any]) -> int:
    """Operations of the products in one run, and of their gradients where it asks for them."""
    with OperationCounter() as counter:
        run()
    return counter.total


def of_matrix_product(result: Tensor, left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    """Operations of x @ y or of linear(x, weight): both sum over the last axis of the first."""
    return 2 * result.numel() * left.shape[-1]


def of_attention(result: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, is_causal: bool = False, **__: Any) -> int:
    """Operations of query times key and weight times value, for the pairs that see each other."""
    asked, seen = q.shape[-2], k.shape[-2]
    pairs = sum(min(query, seen) for query in range(1, asked + 1)) if is_causal else asked * seen
    return 2 * (q.numel() // (asked * q.shape[-1])) * pairs * (q.shape[-1] + v.shape[-1])


def of_convolution(result: Tensor, image: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return 2 * result.numel() * weight[0].numel()


COUNTS: dict[str, Callable[..., int]] = {
    **dict.fromkeys((*MATRIX_PRODUCTS, "linear"), of_matrix_product),
    "scaled_dot_product_attention": of_attention,
    "conv2d": of_convolution,
}


def rollout_flops(predictor: FrameCausalViT, horizon: int) -> float:
    """Operations (two for a multiplication with its addition) of one rollout from one frame, as we compute it."""
    num_hist = predictor.pos_embedding.shape[1] // predictor.tokens_inside
    width, inner = predictor.pos_embedding.shape[2], predictor.layers[0][0].to_out[0].in_features  # type: ignore[index]
    hidden, tokens, depth = predictor.layers[0][1].net[1].out_features, predictor.tokens_inside, len(predictor.layers)  # type: ignore[index]

    def layer(new: int, seen: int, asked: int) -> float:
        """Keys and values of the new frames; what the last `asked` of them look for, see and make of it."""
        attended = sum(range(seen - asked + 1, seen + 1)) * tokens
        per_token = 2 * width * inner + 2 * inner * width + 4 * width * hidden
        return tokens * (new * 4 * width * inner + asked * per_token + 4 * inner * attended)

    total = 0.0
    for step in range(1, horizon + 1):
        new, seen = (1, step) if step <= num_hist else (num_hist, num_hist)
        total += (depth - 1) * layer(new, seen, new) + layer(new, seen, 1)
    return total
