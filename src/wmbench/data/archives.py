"""Archives that nobody vouches for: nothing in them is run, leads out of them, or grows beyond a stated size."""

import io
import re
import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from wmbench.files import regular

LARGEST = 2**32  # bytes of one member, unpacked
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others cannot be read up to a size


def check_archive(archive: zipfile.ZipFile, methods: tuple[int, ...] = METHODS) -> None:
    """Refuse an archive by what it lists, before anything in it is read.

    Raises:
        ValueError: a member that leads out of it, is a link, is compressed by another method, or unpacks to too much.
    """
    for member in archive.infolist():
        name = member.filename
        shown = f"{archive.filename or 'it'} has a member {name!r}"
        if name.startswith(("/", "\\")) or re.search(r"(^|[/\\])\.\.([/\\]|$)|^\w:", name):
            raise ValueError(f"{shown} that leads out of it; this is not the published file")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"{shown} that is a link to elsewhere; pack the file itself")
        if member.compress_type not in methods:
            raise ValueError(f"{shown} of a compression that may grow without bound; pack it anew, by zip -0 or zip")
        if member.compress_type != zipfile.ZIP_STORED and member.file_size > LARGEST:
            raise ValueError(f"{shown} of {member.file_size:,} bytes, and at most {LARGEST:,} are unpacked; split it")


def load_arrays(path: Path) -> dict[str, ndarray]:
    """Arrays of numbers in an .npz file, by name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damage, too large together, or objects, which only unpickling could read.
    """
    regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive)
            if (total := sum(member.file_size for member in archive.infolist())) > LARGEST:
                raise ValueError(f"{total:,} bytes of arrays, and at most {LARGEST:,} are unpacked")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if other := [name for name, array in arrays.items() if not isinstance(array, ndarray)]:
            raise ValueError(f"{other[0]} is no array")
        return arrays
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or no file of arrays ({' '.join(str(error).split())})") from None


def load_saved(file: Path | io.BytesIO, mmap: bool = False) -> Any:
    """What torch.save wrote, to the CPU: tensors, numbers, text, and mappings and lists of them. Nothing is run.

    Raises:
        ValueError: a zip whose members are compressed, which torch's are not.
        Exception: as torch.load, which may raise anything for a damaged file.
    """
    if isinstance(file, Path):
        regular(file)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                check_archive(archive, methods=(zipfile.ZIP_STORED,))
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None
    if isinstance(file, io.BytesIO):
        file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
