"""Decoders: frames from visual latents, to see what a model believes. They never train it."""

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from wmbench.encoders.codebook import COMMITMENT, Codebook
from wmbench.models.base import Losses

DECODED_AT_ONCE = 64  # frames


def decoder_loss(decoder: nn.Module, visual: Float[Tensor, "F N D"], target: Float[Tensor, "F 3 h w"]) -> Losses:
    """DINO-WM's loss; the latents are detached, so nothing behind them learns from it.

    Its parts: `reconstruction`, the mean squared error of pixels in [-1, 1], and `diff`, the mean squared distance of
    latents to their codes, 0 without quantisation.
    """
    pixels, diff = decoder(visual.detach())
    reconstruction = nn.functional.mse_loss(pixels, target)
    return Losses(reconstruction + COMMITMENT * diff, {"reconstruction": reconstruction, "diff": diff})


def frames_to_pixels(frames: UInt8[Tensor, "*B h w 3"]) -> Float[Tensor, "*B 3 h w"]:
    """Frames as decoders give them, in [-1, 1]."""
    return rearrange(frames, "... h w c -> ... c h w") / 127.5 - 1


def pixels_to_frames(pixels: Float[Tensor, "*B 3 h w"]) -> UInt8[ndarray, "*B h w 3"]:
    """The nearest uint8 frames of pixels that may leave [-1, 1]."""
    levels = (rearrange(pixels, "... c h w -> ... h w c").float() + 1) * 127.5
    return levels.round().clamp(0, 255).byte().cpu().numpy()


@torch.no_grad()
def decode_frames(decoder: nn.Module, visual: Float[Tensor, "F N D"]) -> UInt8[ndarray, "F h w 3"]:
    """Decode latents to frames, a few at a time, so that memory does not grow with their number."""
    return pixels_to_frames(torch.cat([decoder(chunk)[0] for chunk in visual.split(DECODED_AT_ONCE)]))


class VQVAEDecoder(nn.Module):
    """DINO-WM's decoder of a grid of tokens: two stages, each doubling the resolution twice; no activation at the end.

    Its state dict has the original's names. The codebook is in it even where `quantize` leaves it unused.

    Args:
        dim: features of a visual token.
        grid: rows and columns of tokens.
        channel, num_res_blocks, res_channel: width of a stage, its residual blocks, their inner width.
        num_codes: entries of the codebook.
        quantize: replace each token by its nearest code first.
        image_size: side of the frames [pixels], to which the 16 pixels per token are resized; by default they are not.

    Raises:
        ValueError: a grid of a single token, which is too little to draw a frame from.
    """

    def __init__(
        self,
        dim: int,
        grid: tuple[int, int],
        channel: int,
        num_res_blocks: int,
        res_channel: int,
        num_codes: int,
        quantize: bool,
        image_size: int | None = None,
    ):
        super().__init__()
        if grid == (1, 1):
            raise ValueError(
                "this decoder draws 16 x 16 pixels a token, and there is one token: use decoder=transposed_conv"
            )
        if channel < 2:
            raise ValueError(f"decoder.channel ({channel}) must be at least 2: half of them are upsampled once more")
        self.grid, self.quantize = grid, quantize
        self.size = (16 * grid[0], 16 * grid[1]) if image_size is None else (image_size, image_size)
        self.quantize_b = Codebook(dim, num_codes)
        self.upsample_b = Upsampling(dim, dim, channel, num_res_blocks, res_channel)
        self.dec = Upsampling(dim, 3, channel, num_res_blocks, res_channel)

    def forward(self, visual: Float[Tensor, "F N D"]) -> tuple[Float[Tensor, "F 3 h w"], Float[Tensor, ""]]:
        """Pixels, which should be in [-1, 1], and the diff of the loss."""
        if self.quantize:
            visual, diff = self.quantize_b(visual)
        else:
            diff = visual.new_zeros(())
        maps = rearrange(visual, "f (r c) d -> f d r c", r=self.grid[0])
        return _resize(self.dec(self.upsample_b(maps)), self.size), diff


class TransposedConvDecoder(nn.Module):
    """DINO-WM's decoder of one token: 2,048 features, five transposed convolutions to 243 x 243 pixels, a resize.

    The paper and our notes on its code leave open what follows. Chosen here: nothing but a reshape follows the linear
    layer; ReLU comes between the convolutions and not after the last, since pixels are negative, too; biases start at
    zero; Kaiming's fan-in and the resize are PyTorch's defaults (of the transposed weight; no antialiasing).

    Args:
        dim: features of the visual token.
        image_size: side of the frames [pixels].
        grid: rows and columns of tokens.

    Raises:
        ValueError: a grid of more than one token.
    """

    CHANNELS = (2048, 512, 256, 128, 64, 3)  # at 1, 3, 9, 27, 81 and 243 pixels

    def __init__(self, dim: int, image_size: int, grid: tuple[int, int] = (1, 1)):
        super().__init__()
        if grid != (1, 1):
            raise ValueError(f"this decoder draws a frame from one token, not from {grid[0]} x {grid[1]}: use decoder=vqvae")
        self.size = (image_size, image_size)
        self.linear = nn.Linear(dim, self.CHANNELS[0])
        layers: list[nn.Module] = []
        for wide, narrow in zip(self.CHANNELS[:-1], self.CHANNELS[1:], strict=True):
            layers += [nn.ReLU(), nn.ConvTranspose2d(wide, narrow, kernel_size=5, stride=3, padding=1)]
        self.layers = nn.Sequential(*layers[1:])
        for layer in (self.linear, *layers[1::2]):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, visual: Float[Tensor, "F 1 D"]) -> tuple[Float[Tensor, "F 3 h w"], Float[Tensor, ""]]:
        """Pixels, which should be in [-1, 1], and a diff of zero."""
        maps = rearrange(self.linear(visual), "f 1 d -> f d 1 1")
        return _resize(self.layers(maps), self.size), visual.new_zeros(())


class Upsampling(nn.Module):
    """A convolution, residual blocks, and two transposed convolutions that quadruple the resolution."""

    def __init__(self, in_dim: int, out_dim: int, channel: int, num_res_blocks: int, res_channel: int):
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(in_dim, channel, 3, padding=1),
            *(ResidualBlock(channel, res_channel) for _ in range(num_res_blocks)),
            nn.ReLU(),
            nn.ConvTranspose2d(channel, channel // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(channel // 2, out_dim, 4, stride=2, padding=1),
        )

    def forward(self, maps: Float[Tensor, "F c h w"]) -> Float[Tensor, "F d H W"]:
        return self.blocks(maps)


class ResidualBlock(nn.Module):
    def __init__(self, channel: int, res_channel: int):
        super().__init__()
        self.conv = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channel, res_channel, 3, padding=1), nn.ReLU(), nn.Conv2d(res_channel, channel, 1)
        )

    def forward(self, maps: Float[Tensor, "F c h w"]) -> Float[Tensor, "F c h w"]:
        return maps + self.conv(maps)


def _resize(pixels: Float[Tensor, "F 3 h w"], size: tuple[int, int]) -> Float[Tensor, "F 3 H W"]:
    return pixels if pixels.shape[-2:] == size else nn.functional.interpolate(pixels, size, mode="bilinear")
