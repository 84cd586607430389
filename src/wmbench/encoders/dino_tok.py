"""A tokenizer after DINO-Tok's abstract (arXiv 2511.20565): a frozen DINO's patch tokens, and texture channels.

Its code and weights are not public. Theirs are the frozen backbone, deep features joined by shallow ones, and 832 features
in all; ours are which blocks are shallow, the linear layer that reads them, and the training.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import Encoder
from wmbench.encoders.codebook import COMMITMENT, WeightedCodebook
from wmbench.encoders.dinov2 import DINO
from wmbench.encoders.tokenizer import Tokenizer, frozen_backbone, head_file
from wmbench.encoders.weights import drawn_from

METHOD = "reimplemented after DINO-Tok's abstract"
SHALLOW = (1 / 12, 1 / 4)  # how much of the backbone a shallow feature has passed: blocks 1 and 3 of 12


class DinoTok(Tokenizer):
    """Tokens [deep, texture]: the backbone's own output, and a few features of its first blocks.

    With codebooks, one for each of the two, tokens are the codes themselves rather than their numbers.

    Args:
        backbone: builds a DINO of patch tokens, given pretrained, seed and, for small networks, architecture.
        texture_dim: trained features of a token.
        num_codes: of each codebook; None for continuous tokens.
        pretrained: False leaves the backbone untrained, and the head as well unless `weights` are given: a control.
        weights: the trained head; None for `file`.
        file: where pretrain.py leaves the trained head.
        seed: of untrained weights.
        architecture: arguments of timm's class in place of the backbone's own, for small networks.
        for_training: leave the head untrained and let it train; only pretrain.py asks for it.

    Raises:
        ValueError: a backbone without patch tokens of a DINO, a size that does not fit, or a head of another network.
        FileNotFoundError: no trained head, or no weights of the backbone; the message says what to do.
    """

    backbone: DINO
    head: "TextureHead"
    official: Mapping[str, str] = {}  # waits for names: the authors have published no file (November 2026)
    remedy = f"{Tokenizer.remedy} (DINO-Tok's authors have published none)"

    def __init__(
        self,
        backbone: Callable[..., Encoder],
        texture_dim: int,
        num_codes: int | None,
        pretrained: bool,
        weights: str | None,
        file: str,
        seed: int,
        architecture: Mapping[str, Any],
        for_training: bool = False,
    ):
        if texture_dim < 1:
            raise ValueError(f"texture_dim ({texture_dim}) must be positive")
        if num_codes is not None and num_codes < 1:
            raise ValueError(f"num_codes ({num_codes}) must be positive, or null for continuous tokens")
        path = head_file(pretrained, weights, file, for_training)
        dino = frozen_backbone(backbone, pretrained, seed, architecture)
        if not isinstance(dino, DINO):
            raise ValueError(f"DINO-Tok reads the blocks of a DINOv2 or DINOv3 ViT, not on {type(dino).__name__}")
        depth, width = len(dino.trunk.blocks), dino.embed_dim
        blocks = sorted({max(1, round(part * depth)) - 1 for part in SHALLOW})
        with drawn_from(seed):
            head = TextureHead(len(blocks) * width, texture_dim)
            if num_codes is not None:
                head.codebooks = nn.ModuleList(WeightedCodebook(dim, num_codes) for dim in (width, texture_dim))
        method = METHOD if num_codes is None else f"{METHOD}, quantised"
        super().__init__(dino, head, width + texture_dim, method, path, seed, for_training)
        self.blocks = blocks

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        parts = self.parts(pixels)
        if self.head.codebooks:
            parts = [codebook.codes(part) for codebook, part in zip(self.head.codebooks, parts, strict=True)]
        return torch.cat(parts, dim=-1)

    def sample(self, pixels: Float[Tensor, "F 3 h w"]) -> tuple[Float[Tensor, "F N D"], Float[Tensor, ""]]:
        if not self.head.codebooks:
            return super().sample(pixels)
        deep, texture = self.parts(pixels)
        deep_book, texture_book = self.head.codebooks
        texture, distance = texture_book(texture)
        return torch.cat([deep_book(deep)[0], texture], dim=-1), COMMITMENT * distance  # deep features cannot come closer

    def parts(self, pixels: Float[Tensor, "F 3 h w"]) -> list[Float[Tensor, "F N _"]]:
        """Deep features and texture, before any quantisation."""
        deep, shallow = self.backbone.trunk.forward_intermediates(pixels, indices=self.blocks, output_fmt="NLC")
        return [deep[:, self.prefix_tokens :], self.head(shallow)]

    def usage(self) -> dict[str, float]:
        """How many codes of each codebook are used."""
        names = ("deep_codes", "texture_codes")
        return {name: book.perplexity for name, book in zip(names, self.head.codebooks, strict=False)}


class TextureHead(nn.Module):
    """Shallow features, joined, normalised and narrowed; the codebooks, if any, are of deep features and of texture.

    Args:
        width: of all of them together.
    """

    codebooks: Any  # WeightedCodebooks

    def __init__(self, width: int, texture_dim: int):
        super().__init__()
        self.norm, self.texture = nn.LayerNorm(width), nn.Linear(width, texture_dim)
        self.codebooks = nn.ModuleList()

    def forward(self, shallow: Sequence[Float[Tensor, "F N C"]]) -> Float[Tensor, "F N E"]:
        return self.texture(self.norm(torch.cat(list(shallow), dim=-1)))
