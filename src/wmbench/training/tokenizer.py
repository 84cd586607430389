"""A tokenizer as a trainee: its head and a decoder learn together to draw a frame from the frame's tokens."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor, nn

from wmbench.data.windows import Windows
from wmbench.encoders.tokenizer import Tokenizer
from wmbench.models.base import Losses
from wmbench.models.decoder import decode_frames, frames_to_pixels
from wmbench.processes.batch import mean_of_all
from wmbench.processes.group import fair_rows
from wmbench.runs.recipe import Recipe
from wmbench.shapes import Batch
from wmbench.training.trainee import EncoderTrainee, autocast


class TokenizerTrainee(EncoderTrainee):
    """Learns with the decoder, which nobody needs once the head is trained.

    Args:
        tokenizer: built for training.
        train, valid: windows of one frame.
        l1_weight: of the mean absolute error of pixels, which is added to the mean squared one.
    """

    what, shown = "training tokenizer", "PSNR {valid_psnr:.1f} dB"

    def __init__(
        self,
        tokenizer: Tokenizer,
        decoder: nn.Module,
        train: Windows,
        valid: Windows,
        recipe: Recipe,
        seed: int,
        l1_weight: int | float,
    ):
        module = nn.ModuleDict({"head": tokenizer.head, "decoder": decoder})
        optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        super().__init__(module, optimizer, train, recipe, seed)
        self.encoder = self.tokenizer = tokenizer
        self.decoder, self.valid, self.l1_weight = decoder, valid, l1_weight

    def forward(self, batch: Batch) -> Losses:
        visual = batch.obs["visual"]
        target = frames_to_pixels(visual[:, 0])
        tokens, penalty = self.tokenizer.sample(self.tokenizer.preprocess(visual))  # in full precision, as models get them
        with autocast(visual.device):
            pixels, _ = self.decoder(tokens)
        reconstruction = nn.functional.mse_loss(pixels.float(), target)
        l1 = nn.functional.l1_loss(pixels.float(), target)
        return Losses(reconstruction + self.l1_weight * l1 + penalty.float(), {"reconstruction": reconstruction})

    def validate(self) -> dict[str, float]:
        error = validate_tokenizer(self.tokenizer, self.decoder, self.valid, self.recipe)
        return {"valid_reconstruction": error, "valid_psnr": psnr(error), **self.tokenizer.usage()}

    def told(self, results: Mapping[str, Any]) -> str:
        return (
            f"held-out frames: mean squared error {results['valid_reconstruction']:.5f} (pixels in [-1, 1]), "
            f"PSNR {results['valid_psnr']:.2f} dB"
        )

    def picture(self) -> Image.Image:
        return above_and_below(reconstruct(self.tokenizer, self.decoder, self.valid, count=6))


@torch.no_grad()
def validate_tokenizer(tokenizer: Tokenizer, decoder: nn.Module, valid: Windows, recipe: Recipe) -> float:
    """Mean squared error of pixels in [-1, 1] over the same held-out frames every time, from the tokens that models see."""
    device = next(decoder.parameters()).device
    decoder.eval()
    errors = []
    for index in valid.held_out(recipe.batch_size, recipe.valid_batches):
        visual = frames(valid, index[fair_rows(len(index))], device)
        tokens = tokenizer.tokens(tokenizer.preprocess(visual))
        with autocast(device):
            pixels, _ = decoder(tokens)
        errors.append(nn.functional.mse_loss(pixels.float(), frames_to_pixels(visual[:, 0])))
    decoder.train()
    return mean_of_all(torch.stack(errors).mean()).item()


def psnr(error: float) -> float:
    """Peak signal-to-noise ratio [dB] of a mean squared error of pixels in [-1, 1], whose range is 2; at most 126."""
    return 10 * float(np.log10(4 / max(error, 1e-12)))


@torch.no_grad()
def reconstruct(tokenizer: Tokenizer, decoder: nn.Module, valid: Windows, count: int) -> UInt8[ndarray, "2 n h w 3"]:
    """Draw evenly spread frames from their tokens; returns the real ones and these."""
    index = np.unique(np.linspace(0, len(valid) - 1, count).astype(int))
    visual = frames(valid, index, next(decoder.parameters()).device)
    drawn = decode_frames(decoder.eval(), tokenizer.tokens(tokenizer.preprocess(visual)))
    return np.stack([visual[:, 0].cpu().numpy(), drawn])


def above_and_below(frames: UInt8[ndarray, "rows n h w 3"]) -> Image.Image:
    """One picture of rows of frames."""
    return Image.fromarray(rearrange(frames, "rows n h w c -> (rows h) (n w) c"))


def frames(windows: Windows, index: ndarray, device: torch.device) -> UInt8[Tensor, "F 1 h w 3"]:
    return windows.get(index, device).obs["visual"]
