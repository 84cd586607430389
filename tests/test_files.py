"""Locks between processes, and files that appear whole."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wmbench import files
from wmbench.files import _is_at, exclusive, in_turn, parse_json, put, regular, whole, write_text


def test_a_full_disk_is_named_with_the_path_and_leaves_no_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "pwrite", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'run'}'"), exclusive(tmp_path / "run", "wait"):
        pytest.fail("held without a holder's name")
    assert list(tmp_path.iterdir()) == []


HOLD = """
import sys, pathlib
from wmbench.files import exclusive
with exclusive(pathlib.Path(sys.argv[1]), "wait"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_a_path(tmp_path):
    path = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match=f"run is in use by process {holder.pid} on .*; wait for it"),
            exclusive(path, "wait for it"),
        ):
            pass
        holder.kill()
        holder.wait()
    with exclusive(path, "wait"):  # a killed process holds nothing
        pass


def test_who_takes_turns_waits_for_the_holder_and_says_so_once(tmp_path, capsys, monkeypatch):
    path, looked = tmp_path / "tokens", threading.Event()

    def take_turn():
        with in_turn(path):
            return (tmp_path / "written").read_text()

    monkeypatch.setattr(files.time, "sleep", lambda seconds: looked.set())
    with ThreadPoolExecutor(1) as pool:
        with exclusive(path, "wait"):
            second = pool.submit(take_turn)
            assert looked.wait(60)
            (tmp_path / "written").write_text("by the first")
        assert second.result(60) == "by the first"
    assert capsys.readouterr().err.count("tokens is in use by process") == 1


def test_a_path_is_free_again_after_its_block(tmp_path):
    for _ in range(2):
        with exclusive(tmp_path / "run", "wait"):
            pass


def test_a_lock_leaves_nothing_behind_and_a_deleted_one_lets_nobody_in(tmp_path):
    lock = tmp_path / ".run.lock"
    with exclusive(tmp_path / "run", "wait"):
        assert lock.exists()
    assert not list(tmp_path.iterdir())
    with lock.open("w") as orphan:  # opened before its holder deletes it
        assert _is_at(lock, orphan)
        lock.unlink()
        assert not _is_at(lock, orphan)
        lock.touch()  # the next holder's
        assert not _is_at(lock, orphan)


def test_an_error_while_writing_leaves_the_file_before(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "before")
    with pytest.raises(OSError, match="disk full"), whole(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_a_temporary_file_keeps_the_suffix(tmp_path):
    with whole(tmp_path / "tasks.npz") as temporary:
        assert temporary.suffix == ".npz"
        temporary.write_text("x")
    assert (tmp_path / "tasks.npz").read_text() == "x"


def test_a_full_disk_is_told_with_the_file_that_does_not_fit(tmp_path):
    with pytest.raises(OSError) as told, whole(tmp_path / "tasks.csv"):
        raise OSError(28, "No space left on device")
    assert (told.value.errno, told.value.filename) == (28, str(tmp_path / "tasks.csv"))


def test_a_lock_that_is_a_link_to_elsewhere_overwrites_nothing(tmp_path):
    """As a stranger's run may bring it: the lock is written to."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".run.lock").symlink_to(tmp_path / "precious")
    with (
        pytest.raises(ValueError, match=r"\.run\.lock is a link to elsewhere.*delete it"),
        exclusive(tmp_path / "run", "wait"),
    ):
        pytest.fail("held")
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_folder_gets_its_name_when_every_file_in_it_is_on_the_disk(tmp_path, monkeypatch):
    (tmp_path / "fresh" / "deep").mkdir(parents=True)
    (tmp_path / "fresh" / "deep" / "weights").write_text("whole")
    settled, fsync = [], files.os.fsync
    monkeypatch.setattr(files.os, "fsync", lambda handle: settled.append(files.os.fstat(handle).st_ino) or fsync(handle))
    inodes = {path.stat().st_ino for path in (tmp_path, tmp_path / "fresh", *(tmp_path / "fresh").rglob("*"))}
    assert put(tmp_path / "fresh", tmp_path / "run") == tmp_path / "run"
    assert (tmp_path / "run/deep/weights").read_text() == "whole" and not (tmp_path / "fresh").exists()
    assert set(settled) == inodes and settled[-1] == tmp_path.stat().st_ino


def test_what_a_killed_writer_left_is_deleted_by_the_next_one_and_what_is_being_written_stays(tmp_path: Path):
    path, others = tmp_path / "run.json", [tmp_path / ".runs.json", tmp_path / ".run.json.lock", tmp_path / "run.1-2.json"]
    for other in others:
        other.touch()
    writer = "import os, sys, time; from pathlib import Path; from wmbench.files import whole\n"
    writer += "with whole(Path(sys.argv[1])) as part: part.write_text('half'); print(part, flush=True); time.sleep(60)"
    left = []
    processes = [subprocess.Popen([sys.executable, "-c", writer, path], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        left.append(Path(process.stdout.readline().strip()))
    processes[0].kill()
    processes[0].wait()
    elsewhere = [left[0].with_name(f".run.{name}-1.json") for name in ("new", "old")]  # of other machines
    for file in elsewhere:
        file.touch()
    os.utime(elsewhere[1], (0, 0))
    write_text(path, "{}")
    assert [file.exists() for file in (*left, *elsewhere, *others)] == [False, True, True, False, True, True, True]
    processes[1].kill()
    processes[1].wait()
    write_text(path, "{}")
    assert not left[1].exists()


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device"])
def test_what_is_no_file_is_refused_before_it_is_waited_for(kind: str, tmp_path: Path):
    path = tmp_path / "data"
    {"folder": path.mkdir, "FIFO": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/zero")}[kind]()
    with pytest.raises(ValueError, match=f"{path} is a {kind}, not a file; give a file"):
        regular(path)
    assert regular(tmp_path / "none") == tmp_path / "none"  # whose reader says what it is for


def test_json_that_is_nested_without_end_is_refused_and_so_is_damage():
    assert parse_json('{"a": [1, {"b": null}], "c": "[[["}') == {"a": [1, {"b": None}], "c": "[[["}
    assert parse_json("[" * 30 + "]" * 30)
    for text in ("[" * 31 + "]" * 31, "[" * 10**6, '{"a":' * 500 + "1" + "}" * 500):
        with pytest.raises(ValueError, match="more than 30 mappings or lists lie within each other"):
            parse_json(text)
    with pytest.raises(ValueError, match="Expecting property name"):
        parse_json("{]")
