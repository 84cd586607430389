"""What every importer does with tensors by name: refuse what is missing, unknown or misshapen, copy the rest."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from wmbench.encoders.weights import check_state
from wmbench.models.vit import FrameCausalViT


def check_names(
    where: str, found: Collection[str], required: Collection[str], optional: Collection[str] | None = ()
) -> None:
    """Refuse a part of a file in which a name is missing or, unless optional is None, unknown.

    Raises:
        ValueError: those names.
    """
    problems = [f"missing {name}" for name in required if name not in found]
    if optional is not None:
        problems += [f"unknown {name}" for name in found if name not in required and name not in optional]
    if problems:
        raise ValueError(f"{where}: {', '.join(sorted(problems)[:8])}")


def load_strictly(where: str, own: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Copy a file's weights into a module's tensors, both under the file's names.

    Raises:
        ValueError: names or shapes that differ.
    """
    check_state(where, weights, {name: tensor.shape for name, tensor in own.items()})
    for name, tensor in own.items():
        tensor.copy_(weights[name])


def load_predictor(predictor: FrameCausalViT, weights: dict[str, Tensor], num_heads: int) -> None:
    """Fill DINO-WM's predictor, but for its action encoder, which every file keeps separately.

    Raises:
        ValueError: names or shapes that differ.
    """
    own = {name: tensor for name, tensor in predictor.state_dict().items() if not name.startswith("action_encoder.")}
    own = {name if name == "pos_embedding" else f"transformer.{name}": tensor for name, tensor in own.items()}
    # One head as wide as the model has no output layer in the original.
    is_bare = num_heads == 1 and not any(".to_out." in name for name in weights)
    load_strictly("predictor", own, identity_projections(own) | weights if is_bare else weights)


def affine_names(linear: nn.Linear) -> dict[str, Tensor]:
    """A linear layer's tensors as the originals', which is a convolution of width 1."""
    own = linear.state_dict()
    return {"patch_embed.weight": own["weight"][..., None], "patch_embed.bias": own["bias"]}


def identity_projections(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Attention's output layers where the originals have none: with one head that is as wide as the model."""
    outputs = {name: tensor for name, tensor in own.items() if ".to_out." in name}
    return {name: torch.eye(len(t)) if t.ndim == 2 else torch.zeros(len(t)) for name, t in outputs.items()}
