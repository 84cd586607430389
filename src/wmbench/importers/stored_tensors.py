"""Tensors in the zip archive that torch.save writes, read when they are asked for."""

import math
import struct
import zipfile
from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
LIMIT = 2**63  # of sizes and offsets
ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, struct.error)


@dataclass(frozen=True)
class Storage:
    archive: zipfile.ZipFile
    member: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that is still in the file; size and stride are non-negative and equally long."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        """Read the tensor to the CPU, from whichever device it was saved on.

        Raises:
            ValueError: the file ends before it, or it reaches beyond its own storage.
        """
        storage, place = self.storage, f"{self.storage.archive.filename}: tensor {self.storage.member}"
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True))
        if not 0 < math.prod(self.size) <= storage.numel or last >= storage.numel:
            raise ValueError(
                f"{place} of size {self.size}, stride {self.stride} and offset {self.offset} does not lie within its "
                f"storage of {storage.numel} elements; the file is damaged or made to mislead"
            )
        data = bytearray(read_member(storage.archive, storage.member, storage.numel * storage.dtype.itemsize))
        return torch.frombuffer(data, dtype=storage.dtype).as_strided(self.size, self.stride, self.offset).clone()


def read_member(archive: zipfile.ZipFile, name: str, size: int | None = None) -> bytes:
    """Find a file in the archive, stored as torch does it (a compressed one could grow without bound)."""
    place = f"{archive.filename}: {name}"
    try:
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or size not in (None, info.file_size):
            raise ValueError(f"it holds {info.file_size} bytes, compressed or not those that its tensor has")
        return archive.read(info)
    except (KeyError, *ZIP_ERRORS) as error:
        raise ValueError(f"{place} is missing or damaged ({error}); download the file again") from None
