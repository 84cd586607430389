"""Object tokens: slots that share out a frozen backbone's tokens among themselves (Slot Attention, arXiv 2006.15055)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import Encoder
from wmbench.encoders.tokenizer import Tokenizer, frozen_backbone, head_file
from wmbench.encoders.weights import drawn_from

SIDE = 32  # of what a decoder draws before it is resized [pixels]


class Slots(Tokenizer):
    """A few tokens for each frame, in place of the backbone's grid.

    Args:
        backbone: builds an encoder with a grid of tokens, given pretrained, seed and, for small networks, architecture.
        num_slots, slot_dim: tokens of a frame, and features of each.
        num_iters: times that slots compete for the backbone's tokens.
        pretrained, weights, file, seed, architecture, for_training: as in DinoTok.

    Raises:
        ValueError: a size or a backbone that does not fit, or a head of another network.
        FileNotFoundError: no trained head, or no weights of the backbone; the message says what to do.
    """

    head: "SlotAttention"

    def __init__(
        self,
        backbone: Callable[..., Encoder],
        num_slots: int,
        slot_dim: int,
        num_iters: int,
        pretrained: bool,
        weights: str | None,
        file: str,
        seed: int,
        architecture: Mapping[str, Any],
        for_training: bool = False,
    ):
        if min(num_slots, slot_dim, num_iters) < 1:
            raise ValueError(f"num_slots ({num_slots}), slot_dim ({slot_dim}) and num_iters ({num_iters}) must be positive")
        path = head_file(pretrained, weights, file, for_training)
        built = frozen_backbone(backbone, pretrained, seed, architecture)
        with drawn_from(seed):
            head = SlotAttention(built.num_tokens, built.embed_dim, num_slots, slot_dim, num_iters)
        super().__init__(built, head, slot_dim, "slots", path, seed, for_training)
        self.grid = (1, num_slots)

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        return self.head(self.backbone.tokens(pixels))

    def own_decoder(self, image_size: int) -> nn.Module:
        return SlotDecoder(self.embed_dim, image_size)


class SlotAttention(nn.Module):
    """Every slot begins at a learned place of its own and not at random: two frames, or a frame and a goal, have the same
    slots in the same order, and nobody needs to match them."""

    def __init__(self, num_tokens: int, dim: int, num_slots: int, slot_dim: int, num_iters: int):
        super().__init__()
        self.num_iters = num_iters
        self.place = nn.Parameter(0.02 * torch.randn(num_tokens, slot_dim))
        self.first = nn.Parameter(torch.randn(num_slots, slot_dim))
        self.read, self.norm = nn.Linear(dim, slot_dim), nn.LayerNorm(slot_dim)
        self.key, self.value = (nn.Linear(slot_dim, slot_dim, bias=False) for _ in range(2))
        self.ask = nn.Sequential(nn.LayerNorm(slot_dim), nn.Linear(slot_dim, slot_dim, bias=False))
        self.cell = nn.GRUCell(slot_dim, slot_dim)
        self.refine = nn.Sequential(
            nn.LayerNorm(slot_dim), nn.Linear(slot_dim, 2 * slot_dim), nn.ReLU(), nn.Linear(2 * slot_dim, slot_dim)
        )

    def forward(self, tokens: Float[Tensor, "F N E"]) -> Float[Tensor, "F K D"]:
        seen = self.norm(self.read(tokens) + self.place)
        slots = self.first.expand(len(tokens), -1, -1)
        for _ in range(self.num_iters):
            share = self.shares(seen, slots)
            gathered = share.transpose(1, 2) @ self.value(seen) / share.sum(1)[..., None].clamp_min(1e-6)
            slots = self.cell(gathered.flatten(0, 1), slots.flatten(0, 1)).unflatten(0, slots.shape[:2])
            slots = slots + self.refine(slots)
        return slots

    def shares(self, seen: Float[Tensor, "F N D"], slots: Float[Tensor, "F K D"]) -> Float[Tensor, "F N K"]:
        """How much of each token goes to each slot; all of it goes to some."""
        return (self.key(seen) @ self.ask(slots).transpose(1, 2) * slots.shape[-1] ** -0.5).softmax(-1)


class SlotDecoder(nn.Module):
    """Each slot draws a picture and says where it is to be seen: the spatial broadcast decoder (arXiv 1901.07017)."""

    def __init__(self, dim: int, image_size: int, width: int = 64):
        super().__init__()
        self.size = (image_size, image_size)
        self.place = nn.Parameter(0.02 * torch.randn(SIDE**2, dim))
        self.draw = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))

    def forward(self, tokens: Float[Tensor, "F K D"]) -> tuple[Float[Tensor, "F 3 h w"], Float[Tensor, ""]]:
        """Pixels, and a diff of zero."""
        drawn = self.draw(tokens[:, :, None] + self.place)
        colour, weight = drawn[..., :3], drawn[..., 3:].softmax(1)
        pixels = rearrange((colour * weight).sum(1), "f (h w) c -> f c h w", h=SIDE).tanh()
        return nn.functional.interpolate(pixels, self.size, mode="bilinear"), tokens.new_zeros(())
