"""Downloads from a server that cuts off, is silent, dawdles or serves something else."""

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from wmbench.encoders import download as downloads
from wmbench.encoders.weights import Release, fetch

DATA = bytes(range(256)) * 400


class Server(ThreadingHTTPServer):
    """Serves DATA; `piece` is how many bytes of it a connection gets at most, `then` what happens after that."""

    daemon_threads = True
    piece, then, ranges, data = len(DATA), "end", True, DATA

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.over = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(self.server.data) - begin))
        self.end_headers()
        self.wfile.write(self.server.data[begin : begin + self.server.piece])
        self.wfile.flush()
        while self.server.then != "end" and not self.server.over.wait(0.05):
            if self.server.then == "dawdle":
                self.wfile.write(b"x")

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.2)
    return tmp_path / "hub" / "checkpoints"


def release_on(server: Server, digest: str | None = hashlib.sha256(DATA).hexdigest()) -> Release:
    return Release("some_vit", f"http://127.0.0.1:{server.server_port}/vit.pth", digest, licence="MIT", access="open")


def test_a_download_that_is_cut_off_goes_on_where_it_was(server: Server, cache: Path):
    server.piece = 40_000
    assert fetch(release_on(server)).read_bytes() == DATA
    assert server.asked == [None, "bytes=40000-", "bytes=80000-"]
    assert [path.name for path in cache.iterdir()] == ["vit.pth"]


def test_the_next_command_goes_on_where_the_last_one_was_stopped(server: Server, cache: Path):
    cache.mkdir(parents=True)
    (cache / "vit.pth.part").write_bytes(DATA[:60_000])
    assert fetch(release_on(server)).read_bytes() == DATA
    assert server.asked == ["bytes=60000-"]


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(server: Server, cache: Path):
    cache.mkdir(parents=True)
    (cache / "vit.pth.part").write_bytes(b"the beginning of something else")
    server.ranges = False
    assert fetch(release_on(server)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("piece", "then", "reason"),
    [
        (0, "wait", r"the server was silent for 0\.2 s"),
        (0, "dawdle", "the server sends less than 1000 bytes per second"),
        (500, "end", r"the connection ended after .*; .* of it are kept"),
    ],
)
def test_a_server_that_gets_nowhere_ends_with_a_message(server: Server, cache: Path, piece: int, then: str, reason: str):
    server.piece, server.then = piece, then
    began = time.monotonic()
    with pytest.raises(FileNotFoundError, match=rf"vit\.pth are not in .* and could not be downloaded \({reason}"):
        fetch(release_on(server))
    assert time.monotonic() - began < 20 and not (cache / "vit.pth").exists()


def test_another_file_at_the_address_is_refused_and_not_gone_on_with(server: Server, cache: Path):
    server.data = DATA[::-1]
    with pytest.raises(ValueError, match=r"vit\.pth\.part has SHA-256 .* instead of .*download it again"):
        fetch(release_on(server))
    assert list(cache.iterdir()) == []


def test_a_file_without_a_published_hash_is_downloaded_only_where_it_is_asked_for(server: Server, cache: Path):
    with pytest.raises(FileNotFoundError, match=r"nobody has published their hash: only scripts/fetch\.py downloads them"):
        fetch(release_on(server, digest=None))
    assert server.asked == []
    assert fetch(release_on(server, digest=None), unpinned=True).read_bytes() == DATA
    assert fetch(release_on(server, digest=None)).read_bytes() == DATA  # its first download's hash is known now


@pytest.mark.parametrize("file", ["../x.pth", "/x.pth", "..", ".bashrc", "a/b.pth"])
def test_a_release_cannot_be_kept_outside_the_cache(file: str):
    with pytest.raises(ValueError, match=r"release\.file \(.*\) must be the name of a file in the cache"):
        Release("some_vit", "https://example.org/x.pth", None, licence="MIT", access="open", file=file)
