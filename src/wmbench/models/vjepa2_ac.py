"""V-JEPA 2-AC's predictor (arXiv 2506.09985) at any size, as switches over DINO-WM's: what differs, one by one."""

from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.attention import Attention
from wmbench.models.base import Losses
from wmbench.models.vit_rope import RotaryAttention, RotaryViT, turned


def thirds(x: Float[Tensor, "B heads L d"]) -> tuple[Tensor, ...]:
    """Features for time, row and column, and what is left."""
    third = x.shape[-1] // 6 * 2
    return x.split([third, third, third, x.shape[-1] - 3 * third], dim=-1)


class Rotary3D(RotaryAttention):
    """Tokens are told apart by time, row and column; one that follows the square of patches, as an action, only by time."""

    def place(self, x: Float[Tensor, "B heads L d"], num_tokens: int) -> Float[Tensor, "B heads L d"]:
        num_frames, side = x.shape[2] // num_tokens, isqrt(num_tokens)
        patch = torch.arange(side**2, device=x.device)
        none = patch.new_zeros(num_tokens - side**2)
        row, column = (torch.cat([place, none]).float().repeat(num_frames) for place in (patch // side, patch % side))
        frame = torch.arange(1 - num_frames, 1, device=x.device).float().repeat_interleave(num_tokens)
        in_time, in_rows, in_columns, rest = thirds(x)
        return torch.cat([turned(in_time, frame), turned(in_rows, row), turned(in_columns, column), rest], dim=-1)

    @staticmethod
    def one_back(keys: Float[Tensor, "B heads L d"]) -> Float[Tensor, "B heads L d"]:
        in_time, *rest = thirds(keys)
        return torch.cat([RotaryAttention.one_back(in_time), *rest], dim=-1)


ROPES: dict[str, type[Attention]] = {"3d": Rotary3D, "time": RotaryAttention, "none": Attention}


class VJEPA2AC(RotaryViT):
    """DINO-WM's ViT under V-JEPA 2-AC's choices.

    Args:
        concat_dim: 0: the action is one more token (V-JEPA 2-AC); 1: it extends every token (DINO-WM).
        rope: 3d (V-JEPA 2-AC), time (vit_rope) or none (DINO-WM: learned places in the window).
        l1: the mean absolute error (V-JEPA 2-AC) rather than the squared one.
        layer_norm: each token that is foreseen has mean 0 and variance 1, as matched.layer_norm gives those of the encoder.
        rollout_steps: blocks that a window's first frame is also rolled out by, on own predictions; the error of the last
            counts as much as that of all predictions from real frames. 1: none.

    Raises:
        ValueError: a rope that is not known, heads too narrow for it, or more steps than a window has.
    """

    def __init__(
        self,
        *,
        num_hist: int,
        head_dim: int,
        rope: str,
        l1: bool,
        layer_norm: bool,
        rollout_steps: int,
        **sizes: int | float,
    ):
        if rope not in ROPES:
            raise ValueError(f"predictor.rope ({rope!r}) must be one of {', '.join(ROPES)}")
        if rope == "3d" and head_dim < 6:
            raise ValueError(
                f"predictor.head_dim ({head_dim}) must be at least 6 with rope=3d, a pair of features for each axis"
            )
        if not 1 <= rollout_steps <= num_hist:
            raise ValueError(f"predictor.rollout_steps ({rollout_steps}) must be between 1 and num_hist ({num_hist})")
        self.attention, self.slides = ROPES[rope], rope != "none"
        self.rope, self.l1, self.layer_norm, self.rollout_steps = rope, l1, layer_norm, rollout_steps
        super().__init__(num_hist=num_hist, head_dim=head_dim, **sizes)
        window = 1 if self.slides else num_hist
        place = torch.randn(1, window * self.tokens_inside, self.norm.normalized_shape[0])
        self.pos_embedding = nn.Parameter(place) if rope != "3d" else None

    def positions(self, first: int, number: int) -> Tensor:
        if self.pos_embedding is None:
            return self.norm.weight.new_zeros(1)
        return super().positions(first, number) if self.slides else self.pos_embedding[:, first : first + number]

    def answer(self, x: Float[Tensor, "*B M W"]) -> Float[Tensor, "*B N D"]:
        answer = super().answer(x)
        return nn.functional.layer_norm(answer, answer.shape[-1:]) if self.layer_norm else answer

    def loss(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], target: Float[Tensor, "B T N D"]) -> Losses:
        measure = nn.functional.l1_loss if self.l1 else nn.functional.mse_loss
        prediction = measure(self(z, action), target)
        if self.rollout_steps == 1:
            return Losses(prediction, {"prediction": prediction})
        last = self.unroll(z[:, :1], action[:, : self.rollout_steps])[:, -1]
        rollout = measure(last, target[:, self.rollout_steps - 1])
        return Losses(prediction + rollout, {"prediction": prediction.detach(), "rollout": rollout.detach()})
