"""How far predicted latents are from the goal's."""

from jaxtyping import Float
from torch import Tensor

MODES = ("last", "all")


def goal_distance(z: Float[Tensor, "B S H N D"], goal: Float[Tensor, "B N D"], mode: str) -> Float[Tensor, "B S"]:
    """Mean squared distance over tokens and features, of the last predicted frame or averaged over all H.

    Raises:
        ValueError: a mode other than last and all.
    """
    if mode not in MODES:
        raise ValueError(f"unknown objective mode {mode!r}; known: {', '.join(MODES)}")
    if mode == "last":
        z = z[:, :, -1:]
    return (z - goal[:, None, None]).square().mean((2, 3, 4))
