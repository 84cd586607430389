"""DINO-WM's published files: the same data in place, converted and zipped; what broken ones say; and our own exports."""

import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from in_process import load_script

from wmbench.data.episodes import Episodes, EpisodeSet
from wmbench.data.normalizer import fit_normalizer
from wmbench.data.official import PUBLISHED, OfficialEpisodes, open_episodes
from wmbench.data.windows import Windows
from wmbench.envs.mazes import MAPS
from wmbench.files import exclusive
from wmbench.importers import checkpoint, published_data

ROOT = Path(__file__).parents[2]
LENGTHS, T, SIZE = (7, 5, 7, 6), 7, 6


def publish(folder: Path, frames=torch.uint8, columns=torch.float64, zipped: bool = True) -> Path:
    """A published folder of 4 episodes: pixels are e * 20 + t, but 200 + e at row and column 0."""
    (folder / "obses").mkdir(parents=True)

    def save(tensor: torch.Tensor, name: str) -> None:
        torch.save(tensor, folder / name, _use_new_zipfile_serialization=zipped)

    generator = torch.Generator().manual_seed(0)
    save(torch.randn(len(LENGTHS), T, 4, generator=generator).to(columns), "states.pth")
    save(torch.rand(len(LENGTHS), T, 2, generator=generator).to(columns), "actions.pth")
    save(torch.tensor(LENGTHS), "seq_lengths.pth")
    for e in range(len(LENGTHS)):
        pixels = (20 * e + torch.arange(T))[:, None, None, None].repeat(1, SIZE, SIZE, 3)
        pixels[:, 0, 0] = 200 + e
        save(pixels.to(frames), f"obses/episode_{e:03d}.pth")
    return folder


def pack(folder: Path, path: Path, root: str = "point_maze/", **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr(f"{root}obses/", b"")  # folders have entries of their own
        for member in sorted(folder.rglob("*.pth")):
            file.writestr(root + member.relative_to(folder).as_posix(), member.read_bytes())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path / "point_maze")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file to write, alone in its folder."""
    return tmp_path / "converted" / "maze.h5"


def everything(episodes: EpisodeSet) -> list[np.ndarray]:
    """All windows of 2 frames x frameskip 2 and the statistics."""
    windows = Windows(episodes, np.arange(len(episodes)), num_frames=2, frameskip=2)
    batch = windows.get(np.arange(len(windows)))
    statistics = fit_normalizer(episodes).state_dict().values()
    return [
        *(batch.obs[name].numpy() for name in ("visual", "proprio")),
        batch.action.numpy(),
        *(tensor.numpy() for tensor in statistics),
    ]


@pytest.mark.parametrize("zipped", [True, False], ids=["new", "old"])
@pytest.mark.parametrize("frames", [torch.uint8, torch.float32, torch.int64], ids=str)
def test_a_folder_reads_as_what_was_saved_whatever_its_types(tmp_path: Path, frames: torch.dtype, zipped: bool):
    columns = torch.float32 if frames == torch.uint8 else torch.float64
    episodes = OfficialEpisodes(folder := publish(tmp_path / "data", frames, columns, zipped))
    states, actions = (torch.load(folder / f"{name}.pth").float().numpy() for name in ("states", "actions"))
    assert len(episodes) == 4 and episodes.image_size == SIZE and episodes.store_every == 1
    np.testing.assert_array_equal(episodes.ep_len, LENGTHS)
    np.testing.assert_array_equal(episodes.ep_offset, (0, 7, 12, 19))
    np.testing.assert_array_equal(episodes.state, np.concatenate([s[:n] for s, n in zip(states, LENGTHS, strict=True)]))
    np.testing.assert_array_equal(episodes.action, np.concatenate([a[:n] for a, n in zip(actions, LENGTHS, strict=True)]))
    np.testing.assert_array_equal(episodes.proprio, episodes.state)
    rows, episode = np.array([[4, 0, 4], [5, 1, 2]]), np.array([[2, 1, 2], [3, 2, 0]])
    read = episodes.frames(rows, episode)
    np.testing.assert_array_equal(read[:, :, 3, 2, 1], episode * 20 + rows)
    np.testing.assert_array_equal(read[:, :, 0, 0, 2], 200 + episode)


def test_steps_behind_an_episodes_length_are_not_there(folder: Path):
    with pytest.raises(IndexError):
        OfficialEpisodes(folder).frames(np.array([5]), np.array([1]))


@pytest.mark.parametrize("root", ["", "point_maze/"])
def test_folder_converted_folder_and_zip_give_the_same(tmp_path: Path, folder: Path, root: str):
    packed = pack(folder, tmp_path / "point_maze.zip", root, compression=zipfile.ZIP_DEFLATED)
    published_data.import_data(folder, tmp_path / "a" / "maze.h5")
    published_data.import_data(packed, tmp_path / "b" / "maze.h5")
    expected = everything(OfficialEpisodes(folder))
    for path in (tmp_path / "a" / "maze.h5", tmp_path / "b" / "maze.h5"):
        assert {file.name for file in path.parent.iterdir()} == {"maze.h5", "maze.manifest.json"}
        for ours, theirs in zip(everything(Episodes(path)), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert (tmp_path / "a" / "maze.h5").read_bytes() == (tmp_path / "b" / "maze.h5").read_bytes()


def test_the_statistics_are_those_of_the_original_loader(folder: Path):
    """Over the real steps of all episodes in float32, with the unbiased std (reference, 2.3)."""
    states = torch.load(folder / "states.pth").float()
    real = torch.cat([states[e, :n] for e, n in enumerate(LENGTHS)])
    normalizer = fit_normalizer(OfficialEpisodes(folder))
    assert torch.equal(normalizer.proprio_mean, real.mean(0)) and torch.equal(normalizer.proprio_std, real.std(0))


def test_the_published_size_gives_the_published_number_of_windows(tmp_path: Path):
    """2,000 episodes of 100 steps, here of one pixel and one file: 145,800 windows and 16,200 (reference, 2.5)."""
    (tmp_path / "obses").mkdir()
    first = tmp_path / "obses" / "episode_000.pth"
    torch.save(torch.zeros(100, 1, 1, 3, dtype=torch.uint8), first)
    for k in range(1, 2000):
        os.link(first, tmp_path / "obses" / f"episode_{k:03d}.pth")
    for name, tensor in (("states", torch.zeros(2000, 100, 4)), ("actions", torch.zeros(2000, 100, 2))):
        torch.save(tensor, tmp_path / f"{name}.pth")
    torch.save(torch.full((2000,), 100), tmp_path / "seq_lengths.pth")
    episodes = OfficialEpisodes(tmp_path)
    which = episodes.split()
    assert [len(numbers) for numbers in which] == [1800, 200]
    windows = [Windows(episodes, numbers, num_frames=4, frameskip=5) for numbers in which]
    assert [len(w) for w in windows] == [145_800, 16_200]


def test_the_manifest_says_how_the_published_data_came_about(folder: Path):
    manifest = OfficialEpisodes(folder).manifest
    assert manifest["maze"] == list(MAPS["umaze"]) and manifest["env"] == "point_maze"
    assert manifest["renderer"] == "mujoco-py" and manifest["render_lag"] is True
    assert (manifest["num_episodes"], manifest["image_size"], manifest["format"]) == (4, SIZE, "dino_wm")


def test_a_changed_pixel_is_another_data_set(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "copy")
    before = OfficialEpisodes(folder).hash
    assert OfficialEpisodes(tmp_path / "copy").hash == before
    frames = torch.load(tmp_path / "copy" / "obses" / "episode_002.pth")
    frames[4, 2, 3, 1] += 1
    torch.save(frames, tmp_path / "copy" / "obses" / "episode_002.pth")
    assert OfficialEpisodes(tmp_path / "copy").hash != before


def damage(name: str, change: Callable[[torch.Tensor], object]) -> Callable[[Path], None]:
    return lambda folder: torch.save(change(torch.load(folder / name)), folder / name)


def cut(name: str, kept: float) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, int(kept * (folder / name).stat().st_size))


class Command:
    """Unpickled by a careless reader, this makes a folder named `ran` where it stands."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


LAST = "obses/episode_003.pth"
BROKEN = {
    "missing column": (lambda folder: (folder / "actions.pth").unlink(), "actions.pth"),
    "missing episode": (lambda folder: (folder / LAST).unlink(), f"{LAST}.*1 of 4 episodes"),
    "one too many": (
        lambda folder: shutil.copy(folder / LAST, folder / "obses/episode_004.pth"),
        "episode_004.pth.*too many",
    ),
    "truncated": (cut(LAST, 0.99), f"{LAST}.*truncated"),
    "truncated to nothing": (cut(LAST, 0), f"{LAST}.*truncated"),
    "truncated column": (cut("states.pth", 0.5), "states.pth.*truncated"),
    "other kind": (lambda folder: (folder / LAST).write_bytes(b"<html>" * 999), f"{LAST}.*is not a tensor"),
    "runs a command": (lambda folder: torch.save(Command(), folder / "states.pth"), "states.pth.*is not a tensor"),
    "no tensor": (
        lambda folder: torch.save({"a": torch.ones(999)}, folder / LAST),
        f"{LAST} must hold one tensor, not a dict",
    ),
    "fewer pixels": (
        damage(LAST, lambda x: x[:, 1:, 1:].repeat(2, 1, 1, 1)),
        rf"{LAST} must be \(7, 6, 6, 3\).*not \(14, 5, 5",
    ),
    "fewer frames": (damage(LAST, lambda x: x[:5].clone()), rf"{LAST} must be \(7, 6, 6, 3\).*not \(5, 6, 6, 3\)"),
    "more frames": (damage(LAST, lambda x: x.repeat(2, 1, 1, 1)), rf"{LAST} must be \(7, 6, 6, 3\).*not \(14, 6, 6, 3\)"),
    "channels first": (damage("obses/episode_000.pth", lambda x: x.mT.transpose(1, 2)), r"episode_000.pth.*\(T, h, h, 3\)"),
    "0 to 1": (damage("obses/episode_000.pth", lambda x: x / 255), "episode_000.pth must hold whole numbers from 0 to 255"),
    "other states": (damage("states.pth", lambda x: x[..., :2]), r"states.pth must be \(N, T, 4\), not \(4, 7, 2\)"),
    "other actions": (damage("actions.pth", lambda x: x[:3]), r"actions.pth must be \(4, 7, 2\).*not \(3, 7, 2\)"),
    "other lengths": (damage("seq_lengths.pth", lambda x: x[:2]), r"seq_lengths.pth must be \(4,\).*not \(2,\)"),
    "too long": (
        damage("seq_lengths.pth", lambda x: x + 1),
        "seq_lengths.pth must hold whole numbers from 1 to the 7 .*not 8",
    ),
    "nan": (damage("actions.pth", lambda x: x * torch.nan), "actions.pth holds NaN"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named_and_nothing_is_written(
    folder: Path, target: Path, case: str, monkeypatch: pytest.MonkeyPatch
):
    breaks, message = BROKEN[case]
    breaks(folder)
    monkeypatch.chdir(folder)
    for open_it in (open_episodes, lambda path: published_data.import_data(path, target)):
        with pytest.raises((ValueError, FileNotFoundError), match=f"{folder}/.*{message}"):
            open_it(folder)
    assert not target.parent.exists() and not Path("ran").exists()


def test_the_folder_around_the_data_says_where_they_are(folder: Path):
    with pytest.raises(FileNotFoundError, match=f"give {folder}"):
        open_episodes(folder.parent)


def test_frames_beyond_the_first_are_checked_when_they_are_read(tmp_path: Path):
    folder = publish(tmp_path / "data", frames=torch.float32)
    damage(LAST, lambda x: x + torch.tensor([0, 0, 0, 0.5, 0, 0, 0])[:, None, None, None])(folder)
    episodes = OfficialEpisodes(folder)
    episodes.frames(np.array([2]), np.array([3]))
    with pytest.raises(ValueError, match=f"{LAST} must hold whole numbers from 0 to 255, not 203.5"):
        episodes.frames(np.array([2, 3]), np.array([3, 3]))


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flip_a_pixel(contents: bytes) -> bytes:
    """One byte of the last episode's first frame, where its 203 203 203 stands."""
    at = contents.rindex(b"\xcb\xcb\xcb")
    return contents[:at] + b"\xcc" + contents[at + 1 :]


ZIPS = {
    "bad checksum": ({}, lambda path: rewrite(path, flip_a_pixel), f"{LAST} in .*point_maze.zip cannot be unpacked.*CRC"),
    "cut": ({}, lambda path: os.truncate(path, path.stat().st_size - 30), "point_maze.zip is a truncated zip"),
    "cut in the middle": ({}, lambda path: os.truncate(path, path.stat().st_size // 2), "point_maze.zip is a truncated zip"),
    "no zip": ({}, lambda path: path.write_bytes(b"<html>"), "point_maze.zip is a truncated zip, or none at all"),
    "nested": ({"root": "data/maze/"}, None, "point_maze.zip has data/maze/states.pth; expected .* in one folder"),
    "outside": ({"root": "../"}, None, "point_maze.zip has a member '../.*' that leads out of it"),
    "absolute": ({"root": "/data/"}, None, "point_maze.zip has a member '/data/.*' that leads out of it"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_a_zip_that_is_not_the_published_one_is_refused(folder: Path, target: Path, case: str):
    options, change, message = ZIPS[case]
    packed = pack(folder, folder.parent / "point_maze.zip", **options)
    if change:
        change(packed)
    with pytest.raises(ValueError, match=message):
        published_data.import_data(packed, target)
    assert not target.parent.exists() or not list(target.parent.iterdir())


def test_a_foreign_zip_is_refused_with_what_it_holds(tmp_path: Path, target: Path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        file.writestr("photos/cat.jpg", b"")
    with pytest.raises(
        ValueError, match=r"photos.zip is not DINO-WM's point_maze data.*states.pth.*it holds photos/cat.jpg"
    ):
        published_data.import_data(tmp_path / "photos.zip", target)


def test_what_a_mac_adds_to_a_zip_is_ignored(folder: Path, target: Path):
    packed = pack(folder, folder.parent / "point_maze.zip")
    with zipfile.ZipFile(packed, "a") as file:
        file.writestr("__MACOSX/point_maze/._states.pth", b"\0")
        file.writestr("__MACOSX/point_maze/states.pth", b"\0")
    published_data.import_data(packed, target)
    assert len(Episodes(target)) == 4


def test_an_error_halfway_leaves_nothing(folder: Path, target: Path):
    """An episode of the right size and the wrong shape shows only when it is unpacked."""
    damage(LAST, lambda x: x.reshape(T, 3, SIZE, SIZE))(folder)
    with pytest.raises(ValueError, match=rf"{LAST} in .*must be \(7, 6, 6, 3\).*not \(7, 3, 6, 6\)"):
        published_data.import_data(pack(folder, folder.parent / "point_maze.zip"), target)
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize("way", ["import_data", "export_data"])
def test_a_stopped_run_leaves_nothing_and_a_killed_one_does_no_harm(
    folder: Path, target: Path, way: str, monkeypatch: pytest.MonkeyPatch
):
    published_data.import_data(folder, source := target.with_name("source.h5"))
    source, output = (folder, target) if way == "import_data" else (source, target.with_suffix(""))
    before = set(target.parent.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(OfficialEpisodes if way == "import_data" else Episodes, "frames", stop_at_the_third())
        with pytest.raises(KeyboardInterrupt):
            getattr(published_data, way)(source, output)
    assert set(target.parent.iterdir()) == before
    partial = output.with_name(output.name + ".partial")
    if way == "import_data":
        partial.write_bytes(b"killed" * 9999)
    else:
        publish(partial)
    getattr(published_data, way)(source, output)
    for ours, theirs in zip(everything(open_episodes(output)), everything(OfficialEpisodes(folder)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not partial.exists()


def stop_at_the_third() -> Callable:
    calls = []

    def frames(episodes: EpisodeSet, rows: np.ndarray, episode: np.ndarray) -> np.ndarray:
        calls.append(rows)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.zeros((*rows.shape, SIZE, SIZE, 3), np.uint8)

    return frames


def test_the_same_data_are_complete_already_and_others_are_not_overwritten(
    folder: Path, target: Path, capsys: pytest.CaptureFixture
):
    published_data.import_data(folder, target)
    before = target.stat().st_mtime_ns
    published_data.import_data(pack(folder, folder.parent / "point_maze.zip"), target)
    assert f"{target} is complete already" in capsys.readouterr().out
    damage(LAST, lambda x: 255 - x)(folder)
    with pytest.raises(ValueError, match=f"{target} holds other data than {folder}"):
        published_data.import_data(folder, target)
    assert target.stat().st_mtime_ns == before


def test_a_disk_that_is_too_small_is_an_error_before_anything_is_written(
    folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch
):
    """25 steps of 6 x 6 x 3 bytes of pixels and 40 of columns are 3,700 bytes."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3699))
    with pytest.raises(ValueError, match=rf"{target} needs 3.7 kB, the disk has"):
        published_data.import_data(folder, target)
    assert not target.parent.exists()


def test_an_export_is_the_published_format_and_comes_back_the_same(folder: Path, target: Path, tmp_path: Path):
    published_data.import_data(folder, target)
    published_data.export_data(target, tmp_path / "mine")
    for name in ("states", "actions", "seq_lengths"):
        original, ours = (torch.load(where / f"{name}.pth") for where in (folder, tmp_path / "mine"))
        real = torch.arange(T) < torch.tensor(LENGTHS)[:, None] if original.ndim > 1 else ...
        assert original.shape == ours.shape and (original[real].to(ours.dtype) == ours[real]).all()
    for k, length in enumerate(LENGTHS):
        frames = torch.load(tmp_path / "mine" / "obses" / f"episode_{k:03d}.pth")
        assert frames.dtype == torch.uint8
        assert torch.equal(frames, torch.load(folder / "obses" / f"episode_{k:03d}.pth")[:length])
    published_data.import_data(tmp_path / "mine", tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == target.read_bytes()
    with pytest.raises(ValueError, match=f"{tmp_path / 'mine'} exists already"):
        published_data.export_data(target, tmp_path / "mine")


def test_an_export_remembers_its_maze_and_renderer(numbered_episodes: Callable, tmp_path: Path):
    published_data.export_data(numbered_episodes().path, tmp_path / "mine")
    manifest = OfficialEpisodes(tmp_path / "mine").manifest
    assert manifest["renderer"] == "warp" and manifest["render_lag"] is False
    assert "hash" not in manifest and manifest["policy"] == PUBLISHED["policy"]


def test_a_collection_without_all_frames_cannot_be_exported(numbered_episodes: Callable, tmp_path: Path):
    with pytest.raises(ValueError, match=r"numbered.*\.h5 stores every 2th frame.*collect again with store_every=1"):
        published_data.export_data(numbered_episodes(store_every=2).path, tmp_path / "mine")


def test_the_folder_or_zip_beside_a_missing_file_is_found(folder: Path):
    data = folder.with_suffix(".h5")
    assert isinstance(open_episodes(data), OfficialEpisodes)
    published_data.import_data(folder, data)
    assert isinstance(open_episodes(data), Episodes)
    data.unlink()
    packed = pack(folder, folder.with_suffix(".zip"))
    shutil.rmtree(folder)
    for path in (data, packed):
        with pytest.raises(ValueError, match=rf"python scripts/import_dino_wm.py data {packed} {data}"):
            open_episodes(path)
    packed.unlink()
    with pytest.raises(FileNotFoundError, match=f"no data set at {data}"):
        open_episodes(data)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit status of a command line."""
    monkeypatch.setattr(sys, "argv", ["import_dino_wm.py", *map(str, arguments)])
    try:
        load_script("scripts/import_dino_wm.py").main()
    except SystemExit as exit:
        return int(exit.code or 0)
    return 0


def test_errors_are_one_line_and_exit_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    for source, output, message in (
        (tmp_path / "none", tmp_path / "x.h5", f"no folder or zip {tmp_path / 'none'}"),
        (tmp_path, tmp_path / "x", f"DST ({tmp_path / 'x'}) must end in .h5"),
    ):
        assert run(monkeypatch, "data", source, output) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}") and error.count("\n") == 1


@pytest.mark.parametrize(("error", "status"), [(3e-7, 0), (2e-5, 1), (float("nan"), 1)])
def test_a_checkpoint_is_imported_only_where_its_outputs_are_those_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, error: float, status: int
):
    imported = []
    errors = [("predictor", 1.2e-7, 1e-5), ("decoder", error, 1e-5)]
    monkeypatch.setattr(checkpoint, "verify_checkpoint", lambda src, expected: errors)
    monkeypatch.setattr(checkpoint, "import_checkpoint", lambda *arguments: imported.append(arguments))
    source = tmp_path / "point_maze_tiny"
    assert run(monkeypatch, "checkpoint", source, "--verify", "expected.pt") == status
    out, err = capsys.readouterr()
    assert f"predictor                       1.2e-07\ndecoder                         {error:.1e}\n" in out
    assert imported == ([(source, Path("checkpoints/outputs/point_maze_tiny"), None)] if status == 0 else [])
    assert ("decoder" in err) == (status == 1)


def test_data_that_do_not_say_who_drew_them_are_not_exported_as_the_published_ones(
    numbered_episodes: Callable, tmp_path: Path
):
    path = numbered_episodes().path
    with h5py.File(path, "r+") as file:
        del file.attrs["manifest"]
    with pytest.raises(ValueError, match=f"the manifest of {path} does not say its renderer"):
        published_data.export_data(path, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_damaged_manifest_of_a_folder_is_named(folder: Path):
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=rf"{folder}/manifest\.json is damaged"):
        OfficialEpisodes(folder)


def test_a_nan_action_in_a_published_episodes_last_real_step_becomes_0(folder: Path):
    actions = torch.load(folder / "actions.pth")
    actions[1, 4:] = torch.nan  # episode 1 has 5 steps; what lies behind them is not there
    torch.save(actions, folder / "actions.pth")
    episodes = OfficialEpisodes(folder)
    assert (episodes.action[7 + 4] == 0).all() and (episodes.action[7 + 3] != 0).all()


def test_a_second_import_of_one_file_is_told_of_the_first(folder: Path, target: Path):
    with exclusive(target, ""), pytest.raises(ValueError, match=f"{target} is in use by process {os.getpid()}"):
        published_data.convert_alone(published_data.import_data, folder, target)
    published_data.convert_alone(published_data.import_data, folder, target)
    assert {file.name for file in target.parent.iterdir()} == {"maze.h5", "maze.manifest.json"}


def test_a_name_with_dots_is_suggested_whole(folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"must end in \.h5, such as .*/maze\.v1\.h5"):
        published_data.import_data(folder, tmp_path / "maze.v1")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: 1 of 2")])
def test_a_tensor_that_memory_does_not_hold_is_not_called_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def too_large(*arguments, **options):
        raise error

    monkeypatch.setattr(torch, "load", too_large)
    with pytest.raises(OSError, match=r"states\.pth does not fit into this machine's memory"):
        OfficialEpisodes(folder)
