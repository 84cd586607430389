"""Tokens in several files and folders are the tokens of one file, wherever each of them is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from several import in_processes
from torch import Tensor

from wmbench.data import token_file, token_list, token_shards
from wmbench.data.episodes import EpisodeSet
from wmbench.data.packing import Packing
from wmbench.data.token_file import TokenFile
from wmbench.data.token_shards import Rows
from wmbench.files import try_lock
from wmbench.shapes import Obs
from wmbench.training.source import Cache, reason_against

CPU = torch.device("cpu")
FRAMES, CHUNK, ROW_BYTES = 44, 7, 2 * (4 + 3)  # two tokens of three features in int8
SHARD_BYTES = 2.5 * CHUNK * ROW_BYTES  # two chunks, so four files of 14, 14, 14 and 2 frames
NUM_BYTES = [14 * ROW_BYTES + 16] * 3 + [2 * ROW_BYTES + 8]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "CHUNK", CHUNK)


@pytest.fixture
def episodes(numbered_episodes: Callable) -> EpisodeSet:
    episodes = numbered_episodes(num_episodes=4, length=11)
    episodes.pixels = np.random.default_rng(0).integers(0, 256, episodes.pixels.shape, dtype=np.uint8)
    return episodes


class Means:
    """Encodes a frame as the means of its halves, and counts frames."""

    def __init__(self) -> None:
        self.frames = 0

    def __call__(self, obs: Obs) -> Tensor:
        visual = obs["visual"].float()
        self.frames += len(visual)
        return torch.stack([half.mean((2, 3)) for half in visual.chunk(2, dim=2)], dim=2)


def new_set(folders: list[Path], episodes: EpisodeSet, shard_bytes: int | float = SHARD_BYTES) -> TokenFile:
    return TokenFile(folders, episodes, {"name": "Means"}, Packing(2, 3, "int8"), 0, 1, shard_bytes=shard_bytes)


def written(folders: list[Path], episodes: EpisodeSet, shard_bytes: int | float = SHARD_BYTES) -> tuple[TokenFile, int]:
    """The set, and how many frames were encoded for it."""
    tokens, encode = new_set(folders, episodes, shard_bytes), Means()
    tokens.write(encode)
    encoded = encode.frames
    tokens.check(encode)
    return tokens, encoded


def rows_of(tokens: TokenFile) -> bytes:
    return Rows(tokens.shards)[np.arange(FRAMES)].tobytes()


@pytest.fixture
def expected(tmp_path: Path, episodes: EpisodeSet) -> bytes:
    """The rows of a single file."""
    (shard,) = (alone := written([tmp_path / "one"], episodes, 1e9)[0]).shards
    assert shard.path.read_bytes()[: FRAMES * ROW_BYTES] == rows_of(alone)
    assert "shard_frames" not in alone.about_path.read_text()  # as it was before there were shards
    return rows_of(alone)


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytes free on two disks, one for each of the folders a and b, which what is written does not change."""
    free = {"a": 10_000, "b": 10_000}
    monkeypatch.setattr(token_shards, "disk_number", lambda folder: ord(folder.name))
    monkeypatch.setattr(token_shards, "free_disk", lambda path: free[path.parent.name])
    return free


def test_windows_show_the_same_tokens_from_one_file_and_from_many(tmp_path: Path, episodes: EpisodeSet, expected: bytes):
    many, _ = written([tmp_path / "many"], episodes)
    assert [shard.path.stat().st_size for shard in many.shards] == NUM_BYTES and rows_of(many) == expected
    one = new_set([tmp_path / "one"], episodes, 1e9)
    rng = np.random.default_rng(1)
    steps, episode = rng.integers(0, 11, (9, 3)), rng.integers(0, 4, (9, 3))
    shown = [tokens.open(CPU, Means()).visual(steps, episode, CPU) for tokens in (one, many)]
    assert torch.equal(*shown) and shown[0].shape == (9, 3, 2, 3)


def test_tokens_on_a_gpu_are_those_of_all_files(
    tmp_path: Path, episodes: EpisodeSet, expected: bytes, monkeypatch: pytest.MonkeyPatch
):
    many, _ = written([tmp_path / "many"], episodes)
    monkeypatch.setattr(token_file, "fits", lambda num_bytes, device: True)
    rows = many.open(CPU, Means()).rows
    assert isinstance(rows, Tensor) and rows.numpy().tobytes() == expected


def test_a_batch_maps_the_files_that_it_reads_from_and_no_other(tmp_path: Path, episodes: EpisodeSet):
    kept = written([tmp_path], episodes)[0].open(CPU, Means())
    assert isinstance(kept.rows, Rows) and not kept.rows.maps
    kept.visual(np.array([[3, 4]]), np.array([[0, 3]]), CPU)  # frames 3 and 37
    assert sorted(kept.rows.maps) == [0, 2]


@pytest.mark.parametrize("lost", range(4))
def test_a_file_that_is_lost_or_cut_off_is_encoded_again_and_no_other(
    lost: int, tmp_path: Path, episodes: EpisodeSet, expected: bytes, capsys: pytest.CaptureFixture
):
    tokens, encoded = written([tmp_path / "many"], episodes)
    assert encoded == FRAMES
    shard = tokens.shards[lost]
    for spoil in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])):
        spoil(shard.path)
        assert new_set([tmp_path / "many"], episodes).missing_bytes == shard.rows_bytes
        again, encoded = written([tmp_path / "many"], episodes)
        assert encoded == len(shard.frames) and rows_of(again) == expected
    assert f"{shard.path} has {shard.num_bytes - 9} bytes" in capsys.readouterr().err


def test_a_damaged_chunk_of_any_file_is_encoded_again(tmp_path: Path, episodes: EpisodeSet, expected: bytes, capsys: Any):
    tokens, _ = written([tmp_path / "many"], episodes)
    with tokens.shards[2].path.open("r+b") as file:
        file.seek(9 * ROW_BYTES)
        file.write(b"damage")
    kept, encode = tokens.open(CPU, Means()), Means()
    kept.encode = encode
    kept.visual(np.array([[4]]), np.array([[3]]), CPU)  # frame 37, the tenth of its file
    assert encode.frames == CHUNK and rows_of(tokens) == expected
    assert f"{tokens.shards[2].path}: frames 35 to 41 are damaged" in capsys.readouterr().err


@pytest.mark.parametrize(("first", "then"), [(1e9, SHARD_BYTES), (SHARD_BYTES, 1e9), (SHARD_BYTES, 1)])
def test_what_is_there_keeps_the_size_of_files_that_it_was_begun_with(
    first: float, then: int | float, tmp_path: Path, episodes: EpisodeSet
):
    """Also where a file of it is to be made again; once nothing is there the new size counts."""
    tokens, _ = written([tmp_path], episodes, first)
    other = new_set([tmp_path], episodes, then)
    assert other.path == tokens.path and other.shards == tokens.shards and not other.missing_bytes
    for shard in tokens.shards:
        shard.path.unlink()
    assert len(written([tmp_path], episodes, then)[0].shards) == {1e9: 1, SHARD_BYTES: 4, 1: 7}[then]


@pytest.mark.parametrize("value", ["14", 13, -14, 0, True, None, [14], 1.5])
def test_a_size_of_files_that_cannot_be_is_refused(value: Any, tmp_path: Path, episodes: EpisodeSet):
    tokens, _ = written([tmp_path], episodes)
    about = json.loads(tokens.about_path.read_text())
    assert about["shard_frames"] == 14
    tokens.about_path.write_text(json.dumps(about | {"shard_frames": value}))
    with pytest.raises(ValueError, match=rf"missing or damaged; .*latents.py --dir {tmp_path} --prune {tokens.name}"):
        new_set([tmp_path], episodes)


def test_files_go_to_the_first_folder_with_room_and_are_read_wherever_they_are(
    tmp_path: Path, episodes: EpisodeSet, expected: bytes, disks: dict[str, int]
):
    folders = [tmp_path / "a", tmp_path / "b"]
    disks["a"] = NUM_BYTES[0] + NUM_BYTES[3]
    tokens, _ = written(folders, episodes)
    assert [shard.path.parent.name for shard in tokens.shards] == ["a", "b", "b", "a"] and rows_of(tokens) == expected
    assert tokens.about_path.parent.name == "a"
    tokens.shards[2].path.rename(folders[0] / tokens.shards[2].path.name)  # by hand
    tokens.shards[0].path.rename(folders[1] / tokens.shards[0].path.name)
    tokens.about_path.rename(folders[1] / tokens.about_path.name)
    disks["a"] = 0
    for order in (folders, folders[::-1]):
        moved, encoded = written(order, episodes)
        assert not encoded and moved.has_room and rows_of(moved) == expected


def test_a_set_that_no_disk_has_room_for_is_not_begun_and_the_reason_names_the_disks(
    tmp_path: Path, episodes: EpisodeSet, disks: dict[str, int], monkeypatch: pytest.MonkeyPatch
):
    folders = [tmp_path / "a", tmp_path / "b"]
    for a, b, has_room in ((sum(NUM_BYTES), 0, True), (2 * NUM_BYTES[0], NUM_BYTES[0] - 1, False), (500, 300, True)):
        disks |= {"a": a, "b": b}
        assert new_set(folders, episodes).has_room == has_room, (a, b)
    disks |= {"a": 400, "b": 150}
    assert (reason := reason_against(new_set(folders, episodes), None)) is not None
    assert f"need 616 B in files of 212 B in {folders[0]} and {folders[1]}, which has 550 B left; make room" in reason
    assert "cache.dir=[ONE_DISK,ANOTHER]" in reason
    monkeypatch.setattr(token_shards, "disk_number", lambda folder: 1)  # two folders of one disk have its room once
    disks |= {"a": 400, "b": 400}
    assert not new_set(folders, episodes).has_room


def test_processes_share_the_chunks_of_all_files_and_two_commands_do_not_meet(
    tmp_path: Path, episodes: EpisodeSet, expected: bytes, monkeypatch: pytest.MonkeyPatch
):
    """The second command has another size in mind; it waits, and finds the first one's files."""
    folders = [tmp_path / "a", tmp_path / "b"]

    def work() -> int:
        return written(folders, episodes)[1]

    assert sorted(in_processes(tmp_path / "met", 3, work)) == [14, 14, 16]
    assert rows_of(new_set(folders, episodes)) == expected
    for path in folders[0].iterdir():
        path.unlink()
    late = new_set(folders, episodes, 1)  # looks before anything is there
    written(folders, episodes)
    late.write(encode := Means())
    assert not encode.frames and len(late.shards) == 4 and rows_of(late) == expected


def test_the_list_has_a_line_for_all_files_of_a_set_and_pruning_deletes_them(
    tmp_path: Path, episodes: EpisodeSet, disks: dict[str, int]
):
    folders = [tmp_path / "a", tmp_path / "b"]
    disks["a"] = 300
    tokens, _ = written(folders, episodes)
    ((name, paths),) = token_list.sets_in(folders).items()
    told = token_list.describe(name, paths)
    assert (name, told["files"], told["written"], told["frames"]) == (tokens.name, "4", "100%", "44")
    tokens.shards[1].path.unlink()
    ((name, paths),) = token_list.sets_in(folders).items()
    assert token_list.written_fraction(name, paths) == pytest.approx(5 / 7)
    with tokens.path.open("rb") as file:
        assert try_lock(file) and token_list.prune(name, paths) is None
    assert token_list.prune(name, paths) == 3 * 4096
    assert not [path for folder in folders for path in folder.iterdir()]


def test_a_list_of_files_that_say_they_are_endless_ends(tmp_path: Path, episodes: EpisodeSet):
    tokens, _ = written([tmp_path], episodes)
    about = json.loads(tokens.about_path.read_text())
    for facts in ({"frames": 10**18}, {"frames": 10**18, "chunk": 1}):
        for shard in ({}, {"shard_frames": 7 * 10**14}):
            tokens.about_path.write_text(json.dumps(about | {"key": about["key"] | facts} | shard))
            ((name, paths),) = token_list.sets_in([tmp_path]).items()
            assert token_list.written_fraction(name, paths) == 0


@pytest.mark.parametrize("value", ["", [], ["a", ""]])
def test_folders_that_cannot_be_are_refused(value: Any):
    with pytest.raises(ValueError, match="must be a folder, or several"):
        Cache("auto", value, "int8", 16.0)
    with pytest.raises(ValueError, match=r"cache.shard_gb \(0\) must be above 0"):
        Cache("auto", "a", "int8", 0)
    assert Cache("auto", ["a", "b"], "int8", 1).folders == [Path("a"), Path("b")]
