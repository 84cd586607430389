"""What a training looks at: frames, or their tokens from a file that is written first where that is worth it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor, nn

from wmbench.data.episodes import EpisodeSet
from wmbench.data.packing import Packing
from wmbench.data.token_facts import is_older
from wmbench.data.token_file import Encode, KeptTokens, TokenFile
from wmbench.data.token_shards import room
from wmbench.data.windows import FrameNumbers, ResidentFrames, Source, StoredFrames, fits, observe
from wmbench.encoders.base import Encoder, weights_hash
from wmbench.encoders.matched import unmatched
from wmbench.machine import size
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
        ValueError: a value that there cannot be.
    """

    enabled: str | bool
    dir: str | Sequence[str]
    dtype: str
    shard_gb: int | float

    def __post_init__(self) -> None:
        if self.enabled not in ("auto", True, False):
            raise ValueError(f"cache.enabled ({self.enabled!r}) must be auto, true or false")
        if not isinstance(self.dir, Sequence) or not self.dir or not all(isinstance(f, str) and f for f in self.dir):
            raise ValueError(f"cache.dir ({self.dir!r}) must be a folder, or several: cache.dir=[ONE,ANOTHER]")
        if self.shard_gb <= 0:
            raise ValueError(f"cache.shard_gb ({self.shard_gb}) must be above 0")
        Packing(1, 1, self.dtype)

    @property
    def folders(self) -> list[Path]:
        """Where files of tokens may be."""
        return [Path(folder) for folder in ([self.dir] if isinstance(self.dir, str) else self.dir)]


class FreshTokens:
    """Tokens that are computed each time and rounded as in the file, so that a run's numbers are the same without it.

    Args:
        frames: source of the frames to encode.
    """

    encoded = True

    def __init__(self, file: TokenFile, frames: Source, encode: Encode):
        self.file, self.frames, self.encode = file, frames, encode

    def visual(self, steps: Int[ndarray, "B T"], episode: Int[ndarray, "B T"], device: torch.device) -> Tensor:
        file = self.file
        obs = observe(self.frames, file.episodes, steps, episode, file.lookback, file.frameskip, device)
        return file.packing.unpack(file.packing.pack(self.encode(obs)))


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
    about = (identity(own), packing, own.lookback, model.frameskip, own.source, 1e9 * cache.shard_gb)
    file = TokenFile(cache.folders, episodes, *about)
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
    missing = file.missing_bytes
    if not file.has_room:
        files = f" in files of {size(file.shards[0].num_bytes)}" if len(file.shards) > 1 else ""
        where, free = " and ".join(map(str, file.folders)), size(sum(room(file.folders).values()))
        return (
            f"their tokens need {size(missing)}{files} in {where}, which has {free} left; make room (python "
            "scripts/latents.py), or set cache.dir=ANOTHER_DISK, cache.dir=[ONE_DISK,ANOTHER] or cache.dtype=int8"
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
            f"tokens of {len(file.numbers):,} frames are computed once and kept: {size(file.num_bytes)} in {place(file)}, "
            f"{size(sum(room(file.folders).values()))} free"
        )
        if older := older_files(file):
            print(f"files of an earlier version are not read; python scripts/latents.py --prune {' '.join(older)}")
        file.write(encode)
    file.check(encode)
    source = file.open(device, encode)
    where = "GPU memory" if isinstance(source.rows, Tensor) else "disk"
    print(f"training reads {size(file.num_bytes)} of tokens from {where}: {place(file)}")
    return source


def place(file: TokenFile) -> str:
    """Where tokens are, in words."""
    return str(file.path) if len(file.shards) == 1 else f"{file.path} and {len(file.shards) - 1} more files"


def older_files(file: TokenFile) -> list[str]:
    """Names of files in which earlier versions kept the same frames' tokens for the same encoder."""
    name = f"*_{file.key['encoder']['name']}_*.latents"
    paths = sorted(path for folder in file.folders for path in folder.glob(name))
    return [path.stem for path in paths if is_older(path, file.key["data"])]
