"""Reading a data set: which frame belongs to which row, splits, other tools' files, and what a broken file says."""

import errno
import os
import re
import subprocess
import sys
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


def put(path: Path, name: str, values) -> Path:
    """The file with another column in place of its own."""
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = values
    return path


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Another tool's file of episodes of 9 and 4 rows."""
    write_as_another_tool(tmp_path / "foreign.h5", (9, 4))
    return tmp_path / "foreign.h5"


def with_value(rows: int, width: int, row: int, column: int, value: float) -> np.ndarray:
    values = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    values[row, column] = value
    return values


def test_a_nan_action_in_an_episodes_last_row_leads_nowhere_and_becomes_0(foreign: Path):
    actions = np.arange(26, dtype=np.float32).reshape(13, 2)
    marked = actions.copy()
    marked[[8, 12]] = np.nan  # stable-worldmodel's mark
    put(foreign, "action", marked)
    actions[[8, 12]] = 0
    np.testing.assert_array_equal(Episodes(foreign).action, actions)


@pytest.mark.parametrize(
    ("name", "row", "column", "value"),
    [
        ("action", 3, 1, np.nan),
        ("action", 7, 0, np.nan),
        ("action", 8, 1, np.inf),  # an episode's last row
        ("action", 0, 0, -np.inf),
        ("state", 8, 2, np.nan),
        ("proprio", 12, 3, np.inf),
        ("state", 5, 0, 1e300),  # beyond float32
    ],
)
def test_a_value_that_is_not_finite_is_refused_with_its_column_and_row(
    foreign: Path, name: str, row: int, column: int, value: float
):
    values = with_value(13, 2 if name == "action" else 4, row, column, 0).astype(np.float64)
    values[row, column] = value
    kind = "NaN" if np.isnan(value) else "Inf, or a number beyond float32's 3.4e38,"
    with pytest.raises(ValueError, match=rf"{foreign}: {name} holds {kind} in row {row}, column {column} .*1 of 13 rows"):
        Episodes(put(foreign, name, values))


@pytest.mark.parametrize(
    ("name", "shape", "width"),
    [("action", (13, 3), 2), ("action", (13,), 2), ("state", (13, 2), 4), ("proprio", (13, 7), 4), ("state", (13, 4, 1), 4)],
)
def test_a_column_of_another_width_is_refused_with_what_it_must_be(foreign: Path, name: str, shape: tuple, width: int):
    found = re.escape(str(shape))
    with pytest.raises(ValueError, match=rf"{foreign}: {name} must be \(rows, {width}\), .*not {found}; "):
        Episodes(put(foreign, name, np.zeros(shape, np.float32)))


def test_a_column_that_holds_no_numbers_is_refused(foreign: Path):
    with pytest.raises(ValueError, match="action must hold numbers"):
        Episodes(put(foreign, "action", np.full((13, 2), b"left")))
    with h5py.File(foreign, "r+") as file:
        del file["action"]
        file.create_group("action")
    with pytest.raises(ValueError, match="action must be a column of numbers, not a group"):
        Episodes(foreign)


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((13, 3, 6, 6), "np.moveaxis"),
        ((13, 6, 6, 4), "leave out the fourth channel"),
        ((13, 6, 6), "three equal channels"),
        ((13, 6, 6, 1), "three equal channels"),
        ((13, 6, 4, 3), "crop or resize"),
        ((13, 0, 0, 3), "crop or resize"),
    ],
)
def test_pixels_of_another_layout_are_refused_with_the_way_to_change_them(foreign: Path, shape: tuple, remedy: str):
    with pytest.raises(ValueError, match=rf"pixels must be \(frames, h, h, 3\), not {re.escape(str(shape))}; .*{remedy}"):
        Episodes(put(foreign, "pixels", np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("chunks", [None, (1, 6, 6, 3)], ids=["contiguous", "chunked"])
def test_whole_numbers_from_0_to_255_are_pixels_in_any_type(foreign: Path, dtype: type, chunks: tuple | None):
    with h5py.File(foreign, "r+") as file:
        pixels = file["pixels"][:]
        del file["pixels"]
        file.create_dataset("pixels", data=pixels.astype(dtype), chunks=chunks)
    frames = Episodes(foreign).frames(np.arange(4), np.ones(4, int))
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, pixels[9:])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fractions_are_no_pixels_and_the_error_says_how_to_make_them(foreign: Path, dtype: type):
    """Divided by 255 once more they would be a black picture."""
    with pytest.raises(ValueError, match=rf"{foreign}: pixels must hold .* 0 to 255, not 0\.\d+; .*255 \* pixels"):
        Episodes(put(foreign, "pixels", np.linspace(0, 1, 13 * 108).reshape(13, 6, 6, 3).astype(dtype)))


@pytest.mark.parametrize(("dtype", "value"), [(np.int16, -1), (np.int16, 256), (np.float32, np.nan), (np.float32, -1.5)])
def test_values_that_no_pixel_has_are_refused(foreign: Path, dtype: type, value: float):
    pixels = np.full((13, 6, 6, 3), 7, dtype)
    pixels[0, 2, 3, 1] = value
    with pytest.raises(ValueError, match=rf"pixels must hold whole numbers from 0 to 255, not {value}"):
        Episodes(put(foreign, "pixels", pixels))


@pytest.mark.parametrize(
    "lengths",
    [[9, 0, 4], [9, -9, 13], [9.5, 3.5], [np.nan, 4], [2**62, 2**62], [], [[9], [4]], [b"9", b"4"]],
    ids=["zero", "negative", "parts", "nan", "huge", "none", "two axes", "words"],
)
def test_lengths_that_no_episode_has_are_refused(foreign: Path, lengths: list):
    with pytest.raises(ValueError, match=rf"{foreign}: ep_len must hold"):
        Episodes(put(foreign, "ep_len", np.array(lengths)))


def test_lengths_in_any_type_of_whole_numbers_are_read(foreign: Path):
    for dtype in (np.uint8, np.int32, np.uint64, np.float64):
        np.testing.assert_array_equal(Episodes(put(foreign, "ep_len", np.array([9, 4], dtype))).ep_len, [9, 4])


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ('{"store_every": 1', "is damaged"),
        ("[1, 2]", "must be facts by name"),
        ('{"store_every": 0}', "store_every 0, which must be a whole number of at least 1"),
        ('{"store_every": "5"}', "store_every '5'"),
        ('{"image_size": 64}', "image_size 64, the columns 6"),
        ('{"num_episodes": 3}', "num_episodes 3, the columns 2"),
    ],
)
def test_a_manifest_that_is_damaged_or_contradicts_the_columns_is_refused(foreign: Path, manifest: str, message: str):
    with h5py.File(foreign, "r+") as file:
        file.attrs["manifest"] = manifest
    with pytest.raises(ValueError, match=f"the manifest of {foreign} .*{message}"):
        Episodes(foreign)


def test_a_store_every_that_does_not_fit_the_frames_is_told(foreign: Path):
    with h5py.File(foreign, "r+") as file:
        file.attrs["manifest"] = '{"store_every": 5}'
    with pytest.raises(ValueError, match=r"ep_len promises .*'pixels': 3} rows, .*'pixels': 13} .*store_every is 5"):
        Episodes(foreign)


def test_frames_of_some_steps_without_a_manifest_say_which_store_every_would_fit(tmp_path: Path):
    path = tmp_path / "few.h5"
    storage.create(path, {"num_episodes": 3, "episode_length": 11, "store_every": 5, "image_size": 4})
    with h5py.File(path, "r+") as file:
        del file.attrs["manifest"]
    message = r"few\.h5: ep_len .*'pixels': 9} \(no manifest says store_every, .* put {\"store_every\": 4 or 5} into"
    with pytest.raises(ValueError, match=message):
        Episodes(path)


HOLD = """
import sys, h5py
with h5py.File(sys.argv[1], "r+") as file:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_file_that_another_program_writes_is_in_use_and_not_to_be_deleted(foreign: Path):
    with subprocess.Popen([sys.executable, "-c", HOLD, foreign], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(OSError, match=rf"{foreign} is in use: another program has it open for writing") as error:
            Episodes(foreign)
        holder.communicate("close")
    assert "elete" not in str(error.value)
    assert len(Episodes(foreign)) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "no"), "permission denied"),
        (OSError(errno.EIO, "no"), "Input/output error"),
        (OSError(errno.EMFILE, "no"), "Too many open files"),
        (OSError("file is already open for write (may use <h5clear file>)"), "h5clear -s"),
    ],
)
def test_what_the_system_refuses_is_not_the_files_fault(
    foreign: Path, error: OSError, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(h5py, "File", lambda *arguments: (_ for _ in ()).throw(error))
    with pytest.raises(OSError, match=f"{foreign}.*{message}") as raised:
        Episodes(foreign)
    assert "elete" not in str(raised.value) and "ollect" not in str(raised.value)


def test_a_folder_is_not_a_file(tmp_path: Path):
    (tmp_path / "maze.h5").mkdir()
    with pytest.raises(OSError, match=r"maze\.h5 is a folder"):
        Episodes(tmp_path / "maze.h5")


@pytest.mark.parametrize("name", ["action", "pixels"])
def test_a_compression_that_is_not_installed_is_named(foreign: Path, name: str):
    """Filter 40001 is nobody's; Blosc is 32001."""
    with h5py.File(foreign, "r+") as file:
        values = file[name][:]
        del file[name]
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((1, *values.shape[1:]))
        layout.set_filter(40001, h5py.h5z.FLAG_OPTIONAL, ())
        kind = h5py.h5t.py_create(values.dtype)
        h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(values.shape), dcpl=layout)
    with pytest.raises(ValueError, match=rf"{foreign}: {name} is compressed by HDF5 filter 40001 .* pip install hdf5plugin"):
        Episodes(foreign)


def test_a_damaged_chunk_of_pixels_is_told_with_the_file(tmp_path: Path):
    path = tmp_path / "damaged.h5"
    write_as_another_tool(path, (9, 4), compression="gzip")
    with h5py.File(path, "r+") as file:
        file["pixels"].id.write_direct_chunk((0, 0, 0, 0), b"no gzip")
    with pytest.raises(ValueError, match=rf"{path} cannot be read as HDF5"):
        Episodes(path)
