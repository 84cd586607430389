"""The axis letters of every signature, what an agent observes, and what a model learns from.

B tasks or batch, S candidate plans, T frames, H horizon (model steps), N tokens, D features, A action block
(frameskip x action size), P proprio, h and w pixels.
"""

from dataclasses import dataclass
from typing import NotRequired, TypedDict

from torch import Tensor


class Obs(TypedDict):
    """Observations of T frames."""

    visual: Tensor  # B T h w 3, uint8 RGB; where `encoded`, the frames' tokens B T N D, float
    encoded: NotRequired[bool]  # in training, where tokens are computed once and kept
    before: NotRequired[Tensor]  # B L h w 3: frames in front of the first, of windows for encoders that look back
    proprio: Tensor  # B T P, float32, as the environment gives it: x, y [m], vx, vy [m/s]


@dataclass(frozen=True)
class Batch:
    """Windows of T frames to learn from."""

    obs: Obs
    action: Tensor  # B T A, not normalised; block t leads from frame t to frame t + 1
