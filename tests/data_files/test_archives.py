"""Archives and HDF5 files that lead elsewhere, grow without bound or hold programs: refused before they are read."""

import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from wmbench.data import archives
from wmbench.data.archives import check_archive, load_arrays, load_saved
from wmbench.data.episodes import Episodes
from wmbench.data.tensor_files import Archive
from wmbench.encoders.weights import read_state


class Runs:
    """Runs a command where it is unpickled."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


def packed(path: Path, name: str = "states.pth", data: bytes = b"0" * 5000, attributes: int = 0, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr, member.compress_type = attributes, archive.compression
        archive.writestr(member, data)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "../states.pth"}, r"member '\.\./states\.pth' that leads out of it"),
        ({"name": "/states.pth"}, "leads out of it"),
        ({"name": "a\\..\\..\\states.pth"}, "leads out of it"),
        ({"name": "C:states.pth"}, "leads out of it"),
        ({"data": b"/etc/hostname", "attributes": 0o120777 << 16}, "that is a link to elsewhere"),
        ({"compression": zipfile.ZIP_LZMA}, "may grow without bound"),
        ({"compression": zipfile.ZIP_DEFLATED}, "of 5,000 bytes, and at most 4,999 are unpacked"),
    ],
)
def test_an_archive_that_leads_out_or_grows_is_refused_unread(
    tmp_path: Path, options: dict, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "LARGEST", 4999)
    path = packed(tmp_path / "point_maze.zip", **options)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *given: pytest.fail("it is read"))
    with pytest.raises(ValueError, match=message):
        Archive(path)
    assert os.listdir(tmp_path) == ["point_maze.zip"]


def test_what_torch_saved_is_read_and_the_same_compressed_is_not(tmp_path: Path):
    path, bomb = tmp_path / "a.pth", tmp_path / "bomb.pth"
    torch.save({"a": torch.arange(3)}, path)
    assert load_saved(path)["a"].tolist() == load_saved(io.BytesIO(path.read_bytes()))["a"].tolist() == [0, 1, 2]
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in plain.infolist():
            archive.writestr(member.filename, plain.read(member))
    with pytest.raises(ValueError, match="of a compression that may grow without bound"):
        load_saved(bomb)
    with pytest.raises(ValueError, match=r"bomb\.pth is damaged or holds more than tensors"):
        read_state(bomb)


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path):
    path, proof = tmp_path / "tasks.npz", tmp_path / "proof"
    np.savez(path, start=np.zeros(3), goal=np.array([Runs(proof)], object))
    with pytest.raises(ValueError, match=r"tasks\.npz is damaged or no file of arrays \(.*allow_pickle"):
        load_arrays(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"one\.npy is damaged or no file of arrays"):
        load_arrays(tmp_path / "one.npy")
    assert not proof.exists()
    np.savez_compressed(path, start=np.zeros(3))
    assert list(load_arrays(path)) == ["start"]


def test_arrays_that_grow_together_beyond_the_limit_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "tasks.npz"
    np.savez_compressed(path, **{f"a{k}": np.zeros(100) for k in range(9)})
    monkeypatch.setattr(archives, "LARGEST", 5000)
    monkeypatch.setattr(np, "load", lambda *given, **options: pytest.fail("it is read"))
    with pytest.raises(ValueError, match=r"tasks\.npz .*\(8,352 bytes of arrays, and at most 5,000 are unpacked\)"):
        load_arrays(path)


def test_what_is_no_array_is_refused(tmp_path: Path):
    path = packed(tmp_path / "tasks.npz", name="start")
    with pytest.raises(ValueError, match=r"tasks\.npz is damaged or no file of arrays \(start is no array\)"):
        load_arrays(path)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("ep_len", (10**12,), r"ep_len has 1,000,000,000,000 episodes and state 36 rows"),
        ("ep_offset", (10**10,), r"its columns beside the pixels take 80,0.* bytes, and at most 4,294,967,296"),
        ("state", (10**9, 4), "its columns beside the pixels take 16,000,"),
        ("pixels", (36, 10**5, 10**5, 3), "pixels of 100,000 a side, and at most 4,096 are read"),
    ],
)
def test_a_small_file_that_promises_more_than_memory_holds_is_refused_unread(
    tmp_path: Path, numbered_episodes: Callable, name: str, shape: tuple, message: str
):
    """HDF5 makes up the numbers that are not in the file."""
    path = numbered_episodes().path
    with h5py.File(path, "r+") as file:
        dtype = file[name].dtype
        del file[name]
        file.create_dataset(name, shape, dtype, chunks=True, fillvalue=1)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=rf"{path.name}: {message}"):
        Episodes(path)


def elsewhere(kind: str, other: Path) -> Callable[[Any], None]:
    """Replaces the column `state` of a file by the same numbers, kept elsewhere."""

    def change(file: Any) -> None:
        shape = file["state"].shape
        if kind == "soft link":
            file.move("state", "hidden")
            file["state"] = h5py.SoftLink("/hidden")
            return
        del file["state"]
        if kind == "external link":
            file["state"] = h5py.ExternalLink(str(other), "state")
        elif kind == "virtual data set":
            layout = h5py.VirtualLayout(shape, np.float32)
            layout[:] = h5py.VirtualSource(str(other), "state", shape)
            file.create_virtual_dataset("state", layout)
        else:
            file.create_dataset("state", shape, np.float32, external=[(str(other), 0, h5py.h5f.UNLIMITED)])

    return change


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("soft link", "state is a link to elsewhere"),
        ("external link", "state is a link to elsewhere"),
        ("virtual data set", "state is put together from other files"),
        ("external storage", "state is stored in other files"),
    ],
)
def test_a_file_whose_numbers_are_elsewhere_is_refused(tmp_path: Path, numbered_episodes: Callable, kind: str, message: str):
    path, other = numbered_episodes().path, tmp_path / "other.h5"
    shutil.copy(path, other)
    with h5py.File(path, "r+") as file:
        elsewhere(kind, other)(file)
    before = other.read_bytes()
    with pytest.raises(ValueError, match=rf"{path.name}: {message}.*write its numbers into the file"):
        Episodes(path)
    assert other.read_bytes() == before


def test_the_limit_is_on_what_is_unpacked_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "LARGEST", 10)
    with zipfile.ZipFile(packed(tmp_path / "a.zip")) as archive:
        check_archive(archive)  # as large as the file itself
