"""What a training looks at: frames, or their tokens from a file that is written first where that is worth it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wmbench.data.episodes import EpisodeSet
from wmbench.data.packing import Packing
from wmbench.data.token_facts import is_older
from wmbench.data.token_file import Encode, FreshTokens, KeptTokens, TokenFile
from wmbench.data.windows import FrameNumbers, ResidentFrames, Source, StoredFrames, fits
from wmbench.encoders.base import Encoder, weights_hash
from wmbench.encoders.matched import unmatched
from wmbench.machine import free_disk, size
from wmbench.models.precision import applied_precision
from wmbench.models.world_model import WorldModel
from wmbench.processes.meeting import by_first
from wmbench.shapes import Obs

# Layers of an encoder whose tokens take longer to compute than to read. A rule that is measured would give a run's last
# digits another rounding from day to day.
DEEP = 2
UNREAD = ("training", "frozen", "source", "note", "licence")  # what tokens do not depend on


@dataclass(frozen=True)
class Cache:
    """The settings `cache` of conf/train.yaml.

    Raises:
        ValueError: an unknown value of enabled or dtype.
    """

    enabled: str | bool
    dir: str
    dtype: str

    def __post_init__(self) -> None:
        if self.enabled not in ("auto", True, False):
            raise ValueError(f"cache.enabled ({self.enabled!r}) must be auto, true or false")
        Packing(1, 1, self.dtype)


def choose_source(model: WorldModel, episodes: EpisodeSet, cache: Cache, num_frames: int, device: torch.device) -> Source:
    """Choose what training looks at, and print it: the encoder's own tokens, cached or rounded alike, or frames.

    What it shows follows only from settings and encoder: a full disk changes a training's time, not its numbers.

    Args:
        num_frames: that the rest of the training encodes, if it encodes them as they come.

    Raises:
        ValueError: cache.enabled=true where there is no cache to be had; a file that does not hold what it should.
    """
    if cache.enabled is True and not model.encoder.frozen:
        raise ValueError("cache.enabled=true needs a frozen encoder: training moves the tokens; leave it at auto")
    is_resident = fits(len(FrameNumbers(episodes)) * episodes.image_size**2 * 3, device)
    if cache.enabled is not True and not (cache.enabled == "auto" and is_worth_keeping(model.encoder)):
        return ResidentFrames(episodes, device) if is_resident else StoredFrames(episodes)
    own, encode = unmatched(model.encoder), make_encode(model, device)
    packing = Packing(own.num_tokens, own.embed_dim, cache.dtype)
    file = TokenFile(Path(cache.dir), episodes, identity(own), packing, own.lookback, model.frameskip, own.source)
    reason = by_first(lambda: reason_against(file, num_frames if cache.enabled == "auto" else None))
    if reason is None:
        return open_tokens(file, encode, device)
    if cache.enabled is True:
        raise ValueError(reason)
    if num_frames:
        print(f"frames are encoded as they come, and rounded as in a cache: {reason}")
    return FreshTokens(file, ResidentFrames(episodes, device) if is_resident else StoredFrames(episodes), encode)


def is_worth_keeping(encoder: Encoder) -> bool:
    """Whether the encoder's tokens stay the same and take longer to compute than to read."""
    layers = sum(isinstance(layer, nn.Linear | nn.Conv2d) for layer in unmatched(encoder).modules())
    return encoder.frozen and layers >= DEEP


def source_facts(source: Source, device: torch.device, frozen: bool) -> dict[str, str]:
    """What a training looks at, for its provenance: everything about it that can change numbers."""
    if isinstance(source, KeptTokens | FreshTokens):
        return {"kind": "tokens", "dtype": source.file.packing.dtype, "encoder_precision": precision(device)}
    rounded = not frozen and applied_precision(device).bf16
    return {"kind": "frames", "encoder_precision": "bf16" if rounded else precision(device)}


def precision(device: torch.device) -> str:
    """Precision of a frozen encoder's matrix products."""
    rounds = device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return "tf32" if rounds else "fp32"


def identity(encoder: Encoder) -> dict[str, Any]:
    """Everything that an encoder's own tokens depend on apart from the frames."""
    encoder = unmatched(encoder)
    return {
        "name": type(encoder).__name__,
        "weights_hash": weights_hash(encoder),
        "structure": structure_hash(encoder),
        "precision": precision(encoder.pixel_mean.device),
        "image_size": encoder.image_size,
        "grid": encoder.grid,
        "pixel_mean": encoder.pixel_mean.flatten().tolist(),
        "pixel_std": encoder.pixel_std.flatten().tolist(),
    }


def structure_hash(module: nn.Module) -> str:
    """Sixteen hex digits that name what a network does with its weights: classes, plain settings, tensors that no file has.

    Two networks may share every weight and still differ, in the heads of their attention or in how frames become clips.
    """
    digest = hashlib.sha256()
    kept = module.state_dict()
    for name, part in module.named_modules():
        settings = {k: v for k, v in vars(part).items() if not k.startswith("_") and k not in UNREAD and _is_plain(v)}
        digest.update(repr((name, type(part).__name__, sorted(settings.items()))).encode())
    for name, tensor in module.named_buffers():
        if name not in kept:
            digest.update(repr((name, tensor.flatten().tolist())).encode())
    return digest.hexdigest()[:16]


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def reason_against(file: TokenFile, num_frames: int | None) -> str | None:
    """Why the file should not be written; None where it is there already, or nothing speaks against it."""
    missing, free = file.missing_bytes, free_disk(file.path)
    if missing > free:
        return (
            f"their tokens need {size(missing)} in {file.path.parent}, which has {size(free)} left; make room "
            "(python scripts/latents.py), or set cache.dir=ANOTHER_DISK or cache.dtype=int8"
        )
    stored = len(file.numbers)
    if missing and num_frames is not None and num_frames < stored:
        return f"this training looks at {num_frames:,}, a cache would be of {stored:,}; cache.enabled=true makes it anyway"
    return None


def make_encode(model: WorldModel, device: torch.device) -> Encode:
    """Make the function that encodes observations (B T ..) as the episodes hold them, without any matching."""
    encoder = unmatched(model.encoder)

    @torch.no_grad()
    def encode(obs: Obs) -> Tensor:
        given: Any = obs
        moved = {name: tensor.to(device) for name, tensor in given.items()}
        return encoder(Obs(**{**moved, "proprio": model.normalizer.normalize_proprio(moved["proprio"])})).float()

    return encode


def open_tokens(file: TokenFile, encode: Encode, device: torch.device) -> Source:
    """Write what the file lacks, check some of it, and open it."""
    if by_first(lambda: file.missing_bytes):
        print(
            f"tokens of {len(file.numbers):,} frames are computed once and kept: {size(file.num_bytes)} in {file.path}, "
            f"{size(free_disk(file.path))} free"
        )
        if older := older_files(file):
            print(f"files of an earlier version are not read; python scripts/latents.py --prune {' '.join(older)}")
        file.write(encode)
    file.check(encode)
    source = file.open(device, encode)
    where = "GPU memory" if isinstance(source.rows, Tensor) else "disk"
    print(f"training reads {size(file.num_bytes)} of tokens from {where}: {file.path}")
    return source


def older_files(file: TokenFile) -> list[str]:
    """Names of files in which earlier versions kept the same frames' tokens for the same encoder."""
    paths = sorted(file.path.parent.glob(f"*_{file.key['encoder']['name']}_*.latents"))
    return [path.stem for path in paths if is_older(path, file.key["data"])]
