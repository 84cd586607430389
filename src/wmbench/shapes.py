"""The axis letters of every signature, and what an agent observes.

B tasks or batch, S candidate plans, T frames, H horizon (model steps), N tokens, D features, A action block
(frameskip x action size), P proprio, h and w pixels.
"""

from typing import NotRequired, TypedDict

from torch import Tensor


class Obs(TypedDict):
    """Observations of T frames."""

    visual: Tensor  # B T h w 3, uint8 RGB; in training also B T N D, float: the frames' tokens, encoded before
    before: NotRequired[Tensor]  # B L h w 3: frames in front of the first, of windows for encoders that look back
    proprio: Tensor  # B T P, float32, as the environment gives it: x, y [m], vx, vy [m/s]
