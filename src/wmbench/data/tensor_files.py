"""The published data set's files of tensors, in a folder or in the zip in which it is downloaded."""

import io
import zipfile
from pathlib import Path, PurePosixPath

from torch import Tensor

from wmbench.data.archives import check_archive, load_saved
from wmbench.files import regular

EXPECTED = "states.pth, actions.pth, seq_lengths.pth and obses/episode_000.pth, ..."


class Folder:
    """The files of a folder; tensors are mapped, so that only what is used is read."""

    def __init__(self, path: Path):
        self.path = path
        if not (path / "states.pth").exists() and (deeper := next(path.glob("*/states.pth"), None)):
            raise FileNotFoundError(f"no {path / 'states.pth'}; it is one folder deeper: give {deeper.parent}")
        files = [file for folder in (path, path / "obses") for file in folder.glob("*") if file.is_file()]
        self.sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}

    def locate(self, name: str) -> str:
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def load(self, name: str) -> Tensor:
        return load_tensor(self.path / name, self.locate(name), mmap=self.can_map(name))

    def can_map(self, name: str) -> bool:
        """Whether torch saved it as the zip that it has written by default since 2020."""
        try:
            return zipfile.is_zipfile(self.path / name)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{self.locate(name)} is damaged ({error}); download it again") from None

    def checksum(self, name: str) -> list[int]:
        """Checksums that torch stored of a tensor's bytes; none in its old format."""
        if not self.can_map(name):
            return []
        try:
            with zipfile.ZipFile(self.path / name) as file:
                return [member.CRC for member in file.infolist()]
        except zipfile.BadZipFile as error:
            raise ValueError(f"{self.locate(name)} is damaged ({error}); download it again") from None


class Archive:
    """The same files in a zip, read straight from it: nothing is unpacked to the disk.

    Raises:
        FileNotFoundError: no such zip.
        ValueError: not a zip, a truncated one, one of something else, or one that check_archive refuses.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(regular(path))
        except FileNotFoundError:
            raise FileNotFoundError(f"no folder or zip {path}; it should hold {EXPECTED}") from None
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is a truncated zip, or none at all ({error}); download it again") from None
        if min((member.header_offset for member in self._zip.infolist()), default=0):
            # What was found is the end of the last file in it, which torch saved as a zip too.
            raise ValueError(f"{path} is a truncated zip; download it again")
        check_archive(self._zip)
        members = [member for member in self._zip.infolist() if not member.is_dir()]
        kept = {PurePosixPath(member.filename): member for member in members if "__MACOSX" not in member.filename}
        roots = [name.parent for name in kept if name.name == "states.pth"]
        if not roots:
            found = ", ".join(str(name) for name in list(kept)[:4]) or "nothing"
            raise ValueError(f"{path} is not DINO-WM's point_maze data: it should hold {EXPECTED}; it holds {found}")
        if len(roots) > 1 or len(roots[0].parts) > 1:
            raise ValueError(
                f"{path} has {', '.join(str(root / 'states.pth') for root in roots)}; expected one states.pth, at the top "
                f"or in one folder"
            )
        self._members = {name.relative_to(roots[0]).as_posix(): kept[name] for name in kept if name.is_relative_to(roots[0])}
        self.sizes = {name: member.file_size for name, member in self._members.items()}

    def locate(self, name: str) -> str:
        return f"{name} in {self.path}"

    def read(self, name: str) -> bytes:
        try:
            return self._zip.read(self._members[name])
        except Exception as error:  # a bad checksum or method, a password, or anything else that a decompressor raises
            raise ValueError(f"{self.locate(name)} cannot be unpacked ({error}); download the zip again") from None

    def load(self, name: str) -> Tensor:
        return load_tensor(io.BytesIO(self.read(name)), self.locate(name), mmap=False)

    def can_map(self, name: str) -> bool:
        return False

    def checksum(self, name: str) -> list[int]:
        return [self._members[name].CRC]


def load_tensor(file: Path | io.BytesIO, where: str, mmap: bool) -> Tensor:
    """Load one tensor that torch.save wrote; no code in the file is run.

    Raises:
        ValueError: naming `where`, for a file that is truncated or holds anything else.
        OSError: the machine's memory does not hold it.
    """
    try:
        tensor = load_saved(file, mmap)
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(f"{where} cannot be read ({error.strerror or error}); download it again") from None
    except Exception as error:  # a damaged file can raise anything
        if isinstance(error, MemoryError) or "not enough memory" in str(error) or "allocate memory" in str(error):
            raise OSError(f"{where} does not fit into this machine's memory; free some, or use a larger machine") from None
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{where} is not a tensor saved by torch, or truncated ({reason[:120]}); download it again"
        ) from None
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{where} must hold one tensor, not a {type(tensor).__name__}")
    return tensor.detach()
