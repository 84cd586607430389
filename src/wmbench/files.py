"""Files that several processes may want at once, and that a kill must not leave half written."""

import fcntl
import json
import os
import re
import socket
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import psutil

from wmbench.processes.group import is_first

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.parents[1]
DAY_S = 86_400
WAIT_S = 0.5  # between two looks at a file that another process holds
DEEPEST = 30  # mappings or lists within each other, in a file that others may have written
TOO_DEEP = f"more than {DEEPEST} mappings or lists lie within each other"


def shipped(name: str) -> Path:
    """A folder that comes with the source: of the checkout, or of the package where that is installed by itself."""
    return next((path for path in (ROOT / name, PACKAGE / name) if path.is_dir()), PACKAGE / name)


def file_name(text: str) -> str:
    """A text as the name of one file or folder, which cannot lead elsewhere."""
    return re.sub(r"[^\w.=+-]+|^\.", "_", text)


def regular(path: Path) -> Path:
    """The path, unless something is there that is no file: reading a FIFO or a device could wait, or go on, without end.

    Raises:
        ValueError: a folder, a FIFO, a socket or a device.
    """
    if path.exists() and not path.is_file():
        kinds = {"folder": path.is_dir(), "FIFO": path.is_fifo(), "socket": path.is_socket()}
        raise ValueError(f"{path} is a {next((kind for kind in kinds if kinds[kind]), 'device')}, not a file; give a file")
    return path


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: damage, or mappings and lists within each other that whoever follows them would get lost in.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    level = _inside([content])
    for _ in range(DEEPEST):
        level = [child for node in level for child in _inside(node.values() if isinstance(node, dict) else node)]
    if level:
        raise ValueError(TOO_DEEP)
    return content


def _inside(values: Iterable[Any]) -> list[Any]:
    """Those that are mappings or lists."""
    return [value for value in values if isinstance(value, dict | list)]


@contextmanager
def exclusive(path: Path, remedy: str) -> Iterator[None]:
    """Hold `path` (a file, or a folder that is worked in) for this process until the block ends, also by a kill.

    The lock is the file .NAME.lock next to it, which names its holder and is deleted by it in the end. The first process of
    a command holds it for all of them.

    Raises:
        ValueError: another process holds it; the message names that process and ends with the remedy. Or the lock is a
            link, whose file would be overwritten.
    """
    if not is_first():
        yield
        return
    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    if lock.is_symlink():
        raise ValueError(f"{lock} is a link to elsewhere, which nothing here makes; delete it")
    with os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+") as file:
        if not try_lock(file) or not _is_at(lock, file):
            raise ValueError(f"{path} is in use by {_holder(file)}; {remedy}")
        try:
            with _named(path):  # a full disk has room for an empty file, and no more
                os.ftruncate(file.fileno(), 0)
                os.pwrite(file.fileno(), json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Hold `path` as `exclusive` does, once whoever holds it now has ended; says for whom it waits."""
    is_told = False
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(exclusive(path, "waiting for it"))
                break
            except ValueError as busy:
                if not is_told:
                    print(f"note: {busy}", file=sys.stderr)
                is_told = True
                time.sleep(WAIT_S)
        yield


def _is_at(path: Path, file: IO) -> bool:
    """Whether the open file is still the one at the path: a holder that ended meanwhile has deleted its lock."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def try_lock(file: IO) -> bool:
    """Take an open file's lock, if nobody has it. It is released when the file is closed, also by a kill."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO) -> str:
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def writing(path: Path, remedy: str) -> Iterator[None]:
    """Say in one line what could not be written, where a disk is full, a folder read-only or a limit reached.

    Raises:
        OSError: naming the path, the system's reason and the remedy.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(f"{path} cannot be written: {reason}; {remedy}") from None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the path to an error that the system gives without one, as it does where a disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path whose file becomes `path` when the block ends without an error: whole on the disk, or not at all.

    Its name is this process's own and keeps the suffix, so that two writers do not mix and writers by suffix work. What
    writers of the path that were killed have left is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, re.escape(path.stem), re.escape(path.suffix))
    temporary = path.with_name(f".{path.stem}.{_machine()}-{os.getpid()}{path.suffix}")
    try:
        with _named(path):
            yield temporary
            put(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path, stem: str = ".+", suffix: str = r"\.\w+") -> None:
    """Delete temporary files whose process has ended, or of another machine's where they are a day old.

    Args:
        stem, suffix: patterns of the names that the files would have got.
    """
    name = re.compile(rf"\.{stem}\.(\w+)-(\d+){suffix}")
    for left in folder.iterdir():
        if match := name.fullmatch(left.name):
            with suppress(OSError):
                is_old = time.time() - left.stat().st_mtime > DAY_S
                if is_old or (match[1] == _machine() and not psutil.pid_exists(int(match[2]))):
                    left.unlink()


@cache
def _machine() -> str:
    """Names what numbers processes: the machine, and of it the container."""
    namespace = Path("/proc/self/ns/pid")
    number = namespace.stat().st_ino if namespace.exists() else 0
    return f"{zlib.crc32(f'{socket.gethostname()} {number}'.encode()):08x}"


def put(finished: Path, path: Path) -> Path:
    """Name a finished file or folder once its contents are on the disk: a power cut leaves all of it or none."""
    for part in (finished, *(finished.rglob("*") if finished.is_dir() else ())):
        _to_disk(part)
    finished.replace(path)
    _to_disk(path.parent)
    return path


def write_text(path: Path, text: str) -> None:
    """Make the text the whole contents of a file, or change nothing."""
    with whole(path) as temporary:
        temporary.write_text(text)


def _to_disk(path: Path) -> None:
    """Wait until a file's contents or a folder's entries would outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
