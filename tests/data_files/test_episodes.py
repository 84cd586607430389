"""Reading a data set: which frame belongs to which row, splits, other tools' files, and what a broken file says."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from wmbench.data import episodes as storage
from wmbench.data.episodes import COLUMNS, Episodes


def write_as_another_tool(path: Path, lengths: tuple[int, ...], dtype=np.float32, **compression) -> dict[str, np.ndarray]:
    """stable-worldmodel's layout: growing chunked columns, int32 lengths and no manifest. Returns what was written.

    Episode e, step t: pixels are e * 20 + t, action (e, t), state and proprio (e, t, -e, -t).
    """
    episode, step = np.repeat(np.arange(len(lengths)), lengths), np.concatenate([np.arange(n) for n in lengths])
    states = np.stack([episode, step, -episode, -step], 1).astype(dtype)
    pixels = np.broadcast_to((episode * 20 + step)[:, None, None, None], (len(step), 6, 6, 3)).astype(np.uint8)
    columns = {"pixels": pixels, "action": np.stack([episode, step], 1).astype(dtype), "state": states, "proprio": states}
    with h5py.File(path, "w", libver="latest") as file:
        for name, values in columns.items():
            chunks, growing = (1, *values.shape[1:]), (None, *values.shape[1:])
            file.create_dataset(name, data=values, chunks=chunks, maxshape=growing, **compression)
        offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        file.create_dataset("ep_len", data=np.array(lengths, np.int32), maxshape=(None,))
        file.create_dataset("ep_offset", data=offsets.astype(np.int64), maxshape=(None,))
        file.create_dataset("reward", data=np.zeros(len(step)))  # a column that we have no use for
    return columns


@pytest.mark.parametrize("store_every", [1, 2, 5])
def test_a_frame_belongs_to_its_episode_and_step(numbered_episodes: Callable, store_every: int):
    episodes = numbered_episodes(num_episodes=4, length=13, store_every=store_every)
    steps = np.arange(0, 13, store_every)
    for episode in (3, 0, 2):
        frames = episodes.frames(steps, np.full(len(steps), episode))
        assert frames.shape == (len(steps), 8, 8, 3)
        np.testing.assert_array_equal(frames[:, 0, 0, 0], episode * 20 + steps)


def test_frames_come_in_the_order_and_shape_asked_for_with_repeats(numbered_episodes: Callable, tmp_path: Path):
    rows, episode = np.array([[4, 0, 4], [7, 1, 2]]), np.array([[2, 0, 2], [1, 2, 0]])
    write_as_another_tool(tmp_path / "other.h5", (12, 12, 12), compression="gzip")
    for episodes in (numbered_episodes(num_episodes=3, length=12), Episodes(tmp_path / "other.h5")):
        np.testing.assert_array_equal(episodes.frames(rows, episode)[..., 0, 0, 0], episode * 20 + rows)


def test_a_frame_that_was_not_stored_is_an_error(numbered_episodes: Callable):
    episodes = numbered_episodes(store_every=4)
    with pytest.raises(ValueError, match=rf"{episodes.path} stores every 4th frame; step 6 is not among them"):
        episodes.frames(np.array([4, 6, 0]), np.array([0, 1, 2]))


def test_rows_hold_what_was_written(numbered_episodes: Callable):
    episodes = numbered_episodes(num_episodes=3, length=7)
    assert len(episodes) == 3 and episodes.image_size == 8 and episodes.store_every == 1
    np.testing.assert_array_equal(episodes.ep_len, [7, 7, 7])
    np.testing.assert_array_equal(episodes.ep_offset, [0, 7, 14])
    np.testing.assert_array_equal(episodes.action[7 + 5], [1, 5])
    np.testing.assert_array_equal(episodes.state[14 + 6], [2, 6, -2, -6])
    np.testing.assert_array_equal(episodes.proprio[3], [0, 3, 0, -3])
    assert episodes.hash == "numbered-3-7-1"


@pytest.mark.parametrize("compression", [{}, {"compression": "gzip"}, {"compression": "lzf", "shuffle": True}])
def test_another_tools_chunked_file_reads_the_same(tmp_path: Path, compression: dict):
    lengths = (9, 4, 13)
    columns = write_as_another_tool(tmp_path / "other.h5", lengths, **compression)
    episodes = Episodes(tmp_path / "other.h5")
    assert episodes.manifest == {} and episodes.store_every == 1 and episodes.image_size == 6
    np.testing.assert_array_equal(episodes.ep_len, lengths)
    for name in ("action", "state", "proprio"):
        np.testing.assert_array_equal(getattr(episodes, name), columns[name])
    for episode, length in enumerate(lengths):
        frames = episodes.frames(np.arange(length), np.full(length, episode))
        np.testing.assert_array_equal(frames, columns["pixels"][sum(lengths[:episode]) :][:length])


def test_another_tools_float64_columns_are_read_as_float32(tmp_path: Path):
    write_as_another_tool(tmp_path / "other.h5", (9, 4), dtype=np.float64)
    episodes = Episodes(tmp_path / "other.h5")
    assert {episodes.action.dtype, episodes.state.dtype, episodes.proprio.dtype} == {np.dtype(np.float32)}


def test_a_file_without_a_manifest_is_known_by_its_contents(tmp_path: Path):
    for name, lengths in (("a", (5, 7)), ("b", (5, 7)), ("c", (7, 5))):
        write_as_another_tool(tmp_path / f"{name}.h5", lengths)
    a, b, c = (Episodes(tmp_path / f"{name}.h5").hash for name in "abc")
    assert a == b != c


def test_the_split_is_by_whole_episodes_disjoint_and_the_same_every_time(numbered_episodes: Callable):
    episodes = numbered_episodes(num_episodes=12, length=3)
    train, valid = episodes.split(0.75, seed=7)
    assert len(train) == 9 and len(valid) == 3
    np.testing.assert_array_equal(np.sort(np.concatenate([train, valid])), np.arange(12))
    for again, first in zip(Episodes(episodes.path).split(0.75, seed=7), (train, valid), strict=True):
        np.testing.assert_array_equal(again, first)
    assert any((episodes.split(0.75, seed=s)[1] != valid).any() for s in range(5))


def test_the_split_is_dino_wms(tmp_path: Path):
    """datasets/traj_dset.py: torch's random_split of the episodes with a generator seeded 42."""
    manifest = {"num_episodes": 2000, "episode_length": 1, "store_every": 1, "image_size": 1}
    storage.create(tmp_path / "all.h5", manifest)
    generator = torch.Generator().manual_seed(42)
    theirs = torch.utils.data.random_split(range(2000), [1800, 200], generator=generator)
    for ours, subset in zip(Episodes(tmp_path / "all.h5").split(), theirs, strict=True):
        np.testing.assert_array_equal(ours, sorted(subset.indices))


def test_a_missing_file_is_an_error_with_the_command_that_makes_it(tmp_path: Path):
    path = tmp_path / "none.h5"
    with pytest.raises(FileNotFoundError, match=rf"no data set at {path}.*scripts/collect\.py.*output={path}"):
        Episodes(path)


def test_an_unfinished_file_is_an_error_that_says_how_to_finish_it(numbered_episodes: Callable):
    path = numbered_episodes().path
    path.rename(storage.partial_path(path))
    with pytest.raises(FileNotFoundError, match=rf"{path} is not complete yet; run the command that makes it again"):
        Episodes(path)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_an_error_that_names_it(numbered_episodes: Callable, kept: float):
    path = numbered_episodes(num_episodes=5, length=15, image_size=16).path
    os.truncate(path, int(kept * path.stat().st_size))
    with pytest.raises(ValueError, match=rf"{path} cannot be read as HDF5: it is truncated or another kind of file"):
        Episodes(path)


@pytest.mark.parametrize("contents", [b"PK\x03\x04 a zip file", b"version https://git-lfs.github.com/spec/v1\n" * 9])
def test_another_kind_of_file_is_an_error_that_names_it(tmp_path: Path, contents: bytes):
    path = tmp_path / "episodes.h5"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=rf"{path} cannot be read as HDF5.*collect or download it again"):
        Episodes(path)


@pytest.mark.parametrize("missing", COLUMNS)
def test_a_missing_column_is_named(numbered_episodes: Callable, missing: str):
    path = numbered_episodes().path
    with h5py.File(path, "r+") as file:
        del file[missing]
    with pytest.raises(ValueError, match=rf"{path} lacks the columns \['{missing}'\]"):
        Episodes(path)


@pytest.mark.parametrize("column", ["pixels", "action", "state", "proprio"])
def test_a_column_with_too_few_rows_is_an_error_that_names_the_numbers(tmp_path: Path, column: str):
    path = tmp_path / "short.h5"
    write_as_another_tool(path, (9, 4))
    with h5py.File(path, "r+") as file:
        file[column].resize(12, axis=0)
    with pytest.raises(ValueError, match=rf"{path}: ep_len promises .*'{column}': 13.* have .*'{column}': 12"):
        Episodes(path)


@pytest.mark.parametrize("shape", [(13, 6, 6), (13, 3, 6, 6), (13, 6, 4, 3), (13, 6, 6, 1)])
def test_pixels_that_are_not_square_rgb_frames_are_refused(tmp_path: Path, shape: tuple):
    path = tmp_path / "odd.h5"
    write_as_another_tool(path, (9, 4))
    with h5py.File(path, "r+") as file:
        del file["pixels"]
        file["pixels"] = np.zeros(shape, np.uint8)
    with pytest.raises(ValueError, match=rf"{path}: pixels must be \(frames, h, h, 3\), not"):
        Episodes(path)


def test_offsets_that_contradict_the_lengths_are_refused(tmp_path: Path):
    """Frames are found by ep_len, rows by ep_offset: a file whose episodes are stored in another order would pair
    the frames of one episode with the actions of another."""
    path = tmp_path / "shuffled.h5"
    write_as_another_tool(path, (9, 4))
    with h5py.File(path, "r+") as file:
        file["ep_offset"][:] = [4, 0]
    with pytest.raises(ValueError, match=rf"{path}.*ep_offset"):
        Episodes(path)
