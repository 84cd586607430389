"""One file from an address: gone on with where it was cut off, and given up where the server is silent."""

import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from wmbench.machine import progress_bar, size

TIMEOUT_S = 10  # without a byte
SLOWEST = 1000  # bytes per second, once TIMEOUT_S are over
TRIES = 5
CHUNK = 2**20


def download(url: str, path: Path) -> None:
    """Add to the file what it lacks of the one at the address; a connection that breaks is made anew while bytes come.

    Raises:
        OSError: it could not be finished; the file keeps what came.
    """
    for attempt in range(1, TRIES + 1):
        begun = _bytes(path)
        try:
            return _receive(url, path, begun)
        except (OSError, HTTPException) as error:
            if attempt == TRIES or _bytes(path) <= begun:
                kept = f"; {size(_bytes(path))} of it are kept" if _bytes(path) else ""
                raise OSError(f"{_reason(error)}{kept}") from error


def _receive(url: str, path: Path, begun: int) -> None:
    request = Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        response = urlopen(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416 and begun:  # nothing is lacking; its hash will tell
            return
        raise
    with response, path.open("ab") as file:
        if response.headers.get_content_type() == "text/html":
            raise OSError(f"{url} is a page, not a file")  # a form to fill in, a quota that is used up
        if begun and response.status != 206:  # the server sends all of it again
            file.truncate(0)
            begun = 0
        length = response.headers.get("Content-Length")
        total, since = begun + int(length) if length else None, time.monotonic()
        with progress_bar(total=total, initial=begun, unit="B", unit_scale=True, desc=path.stem) as bar:
            while chunk := response.read1(CHUNK):
                bar.update(file.write(chunk))
                waited = time.monotonic() - since
                if waited > TIMEOUT_S and bar.n - begun < SLOWEST * waited:
                    raise OSError(f"the server sends less than {SLOWEST} bytes per second")
        file.flush()
        if total is not None and _bytes(path) < total:
            raise OSError(f"the connection ended after {size(_bytes(path))} of {size(total)}")


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    silent = isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
    return f"the server was silent for {TIMEOUT_S} s" if silent else str(error) or type(error).__name__
