"""Opening HDF5 files that other programs may have written, hold open or have damaged: what is wrong, in a sentence."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py

from wmbench.files import regular

HARD = 0  # H5L_TYPE_HARD: a name of the data themselves
INTO_ONE = "write its numbers into the file, as h5repack does"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open the file for reading.

    Raises:
        OSError: the file may be well and cannot be read now: in use, permission denied, a folder.
        ValueError: truncated, damaged or another kind of file.
    """
    if not path.is_dir():
        regular(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise explained(path, error) from None


def explained(path: Path, error: Exception) -> OSError | ValueError:
    """What h5py's error means for the file and its reader. HDF5 gives a number where the system refused, not the file."""
    reason = " ".join(str(error).split())
    number = getattr(error, "errno", None)
    if isinstance(error, BlockingIOError):
        return OSError(
            f"{path} is in use: another program has it open for writing; close it there or wait "
            f"(on a network disk without locks: HDF5_USE_FILE_LOCKING=FALSE)"
        )
    if isinstance(error, PermissionError):
        return OSError(f"{path} cannot be read: permission denied; make it readable: chmod u+r {path}")
    if isinstance(error, IsADirectoryError):
        return OSError(f"{path} is a folder, not a data set's file; give the path of a file")
    if "already open for write" in reason:
        return OSError(
            f"{path} is marked as open for writing: a program is writing it, or was killed while it did; "
            f"if none is, clear the mark: h5clear -s {path}"
        )
    if number is not None:
        return OSError(f"{path} cannot be read: {os.strerror(number)}")
    return ValueError(
        f"{path} cannot be read as HDF5: it is truncated or another kind of file ({reason}). "
        f"Delete it and collect or download it again"
    )


def check_links(path: Path, file: h5py.File, names: Iterable[str]) -> None:
    """Refuse names of a file that only point to where their numbers are, before anything follows them.

    Raises:
        ValueError: a soft link, or one to another file.
    """
    for name in map(str.encode, names):
        if file.id.links.exists(name) and file.id.links.get_info(name).type != HARD:
            raise ValueError(f"{path}: {name.decode()} is a link to elsewhere, and only the file itself is read; {INTO_ONE}")


def check_place(path: Path, column: h5py.Dataset) -> None:
    """Refuse a column whose numbers are in other files: a virtual data set, or one with external storage.

    Raises:
        ValueError: naming the column.
    """
    if column.is_virtual or column.external:
        kind = "is put together from" if column.is_virtual else "is stored in"
        name = (column.name or "").strip("/")
        raise ValueError(f"{path}: {name} {kind} other files, and only the file itself is read; {INTO_ONE}")


def check_filters(path: Path, column: h5py.Dataset) -> None:
    """Refuse a column whose compression this machine cannot undo; hdf5plugin brings the usual ones where it is installed.

    Raises:
        ValueError: naming the filter.
    """
    created = column.id.get_create_plist()
    filters = [created.get_filter(k) for k in range(created.get_nfilters())]
    if any(not h5py.h5z.filter_avail(code) for code, *_ in filters):
        with contextlib.suppress(ImportError):
            import hdf5plugin  # type: ignore[import-not-found]  # noqa: F401 - importing it registers its filters
    for code, _, _, name in filters:
        if not h5py.h5z.filter_avail(code):
            known = name.decode(errors="replace").strip("\x00") or "unnamed"
            raise ValueError(
                f"{path}: {(column.name or '').strip('/')} is compressed by HDF5 filter {code} ({known}), which is not "
                f"installed here; the file may be well: pip install hdf5plugin, or h5repack -f GZIP=4 where it can be read"
            )
