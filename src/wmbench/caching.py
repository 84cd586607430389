"""What a training looks at: frames, or their tokens from a file that is written first where that is worth it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wmbench.data.episodes import EpisodeSet
from wmbench.data.latents import LatentFile
from wmbench.data.packing import Packing
from wmbench.data.windows import FrameNumbers, ResidentFrames, Source, StoredFrames, fits
from wmbench.encoders.base import Encoder, weights_hash
from wmbench.machine import free_disk, size
from wmbench.models.world_model import WorldModel
from wmbench.shapes import Obs

# Parameters of an encoder whose tokens take longer to compute than to read. A rule that is measured would give a run's last
# digits another rounding from day to day.
LARGE = 1_000_000


@dataclass(frozen=True)
class Cache:
    """conf/train.yaml's settings of that name.

    Raises:
        ValueError: an unknown value of enabled.
    """

    enabled: str | bool
    dir: str
    dtype: str

    def __post_init__(self) -> None:
        if self.enabled not in ("auto", True, False):
            raise ValueError(f"cache.enabled ({self.enabled!r}) must be auto, true or false")


def choose_source(model: WorldModel, episodes: EpisodeSet, cache: Cache, num_frames: int, device: torch.device) -> Source:
    """Tokens from the cache, frames on the GPU where they fit, or frames as they are stored; it says which, and why.

    Args:
        num_frames: that the rest of the training encodes, if it encodes them as they come.

    Raises:
        ValueError: cache.enabled=true where there is no cache to be had; a file that does not hold what it should.
    """
    if cache.enabled is True and not model.encoder.frozen:
        raise ValueError("cache.enabled=true needs a frozen encoder: training moves the features; leave it at auto")
    is_large = sum(p.numel() for p in model.encoder.parameters()) >= LARGE
    if cache.enabled is True or (cache.enabled == "auto" and model.encoder.frozen and is_large):
        packing = Packing(model.encoder.num_tokens, model.encoder.embed_dim, cache.dtype)
        file = LatentFile(
            Path(cache.dir), episodes, identity(model.encoder), packing, model.encoder.lookback, model.frameskip
        )
        reason = reason_against(file, num_frames if cache.enabled == "auto" else None)
        if reason is None:
            return tokens(file, model, device)
        if cache.enabled is True:
            raise ValueError(reason)
        if num_frames:
            print(f"frames are encoded as they come: {reason}")
    if fits(len(FrameNumbers(episodes)) * episodes.image_size**2 * 3, device):
        return ResidentFrames(episodes, device)
    return StoredFrames(episodes)


def identity(encoder: Encoder) -> dict[str, Any]:
    """Everything that tokens depend on beside the frames; matched arms are part of weights, source and grid."""
    return {
        "name": type(encoder).__name__,
        "source": encoder.source,
        "weights_hash": weights_hash(encoder),
        "image_size": encoder.image_size,
        "grid": encoder.grid,
        "pixel_mean": encoder.pixel_mean.flatten().tolist(),
        "pixel_std": encoder.pixel_std.flatten().tolist(),
    }


def reason_against(file: LatentFile, num_frames: int | None) -> str | None:
    """Why the file should not be written; None where it is there already, or nothing speaks against it."""
    missing, free = file.missing_bytes, free_disk(file.path)
    if missing > free:
        return (
            f"their features need {size(missing)} in {file.path.parent}, which has {size(free)} left; make room "
            "(python scripts/latents.py), or set cache.dir=ANOTHER_DISK, cache.dtype=int8 or matched.pool"
        )
    stored = len(file.numbers) * (1 + file.lookback)
    if missing and num_frames is not None and num_frames < stored:
        return f"this training looks at {num_frames:,}, a cache would be of {stored:,}; cache.enabled=true makes it anyway"
    return None


def tokens(file: LatentFile, model: WorldModel, device: torch.device) -> Source:
    """The file's contents, once what it lacks is written and some of it is checked."""

    @torch.no_grad()
    def encode(obs: Obs) -> Tensor:
        return model.encode_visual(Obs(visual=obs["visual"].to(device), proprio=obs["proprio"].to(device))).float()

    if file.missing_bytes:
        print(
            f"features of {len(file.numbers):,} frames are computed once and kept: {size(file.num_bytes)} in {file.path}, "
            f"{size(free_disk(file.path))} free"
        )
        file.write(encode)
    file.check(encode)
    source = file.open(device)
    where = "GPU memory" if isinstance(source.rows, Tensor) else "disk"
    print(f"training reads {size(file.num_bytes)} of features from {where}: {file.path}")
    return source
