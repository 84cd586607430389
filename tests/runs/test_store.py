"""What is written is whole, what is damaged is refused by name, and a full disk costs nothing that was saved."""

import copy
import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wmbench.encoders.weights import not_finite
from wmbench.runs import store
from wmbench.runs.store import load_mapping, load_resume, load_tensors, save_mapping, save_resume, save_tensors, steps_done

LARGE = {"a": torch.zeros(50_000)}


def trained(width: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = nn.Linear(width, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, width)).sum().backward()
    optimizer.step()
    return module, optimizer


def test_a_full_disk_is_one_line_and_leaves_the_file_before(tmp_path: Path):
    """With a limit on the size of files in a process of its own, which stands for a disk without room."""
    script = f"""
import resource, sys, torch, pathlib
from wmbench.runs.store import save_mapping, save_tensors
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for name, save in (("a.safetensors", lambda path: save_tensors(path, {{"a": torch.zeros(50_000)}})),
                   ("a.yaml", lambda path: save_mapping(path, {{"a": "x" * 50_000}}))):
    path = pathlib.Path({str(tmp_path)!r}, name)
    path.write_text("before")
    try:
        save(path)
    except OSError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for name, line in zip(("a.safetensors", "a.yaml"), lines, strict=True):
        assert f"{tmp_path / name} cannot be written (" in line and "goes on from it once there is room" in line
        assert (tmp_path / name).read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 10_000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EDQUOT, errno.EROFS])
def test_whatever_the_disk_refuses_names_the_file(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch):
    def refuse(tensors: dict, path: Path, metadata: dict) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(store, "save_file", refuse)
    with pytest.raises(OSError, match=r"a\.safetensors cannot be written \(.*refused; .* free there\)"):
        save_tensors(tmp_path / "a.safetensors", LARGE)


def test_a_flipped_bit_is_noticed_and_a_file_without_a_checksum_is_read(tmp_path: Path):
    path, tensors = tmp_path / "a.safetensors", {"a": torch.arange(5.0), "b": torch.arange(3)}
    save_tensors(path, tensors)
    assert list(load_tensors(path, "")[0]) == ["a", "b"]
    contents = bytearray(path.read_bytes())
    contents[-20] ^= 1
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged \(it has another checksum than .*\); make it anew"):
        load_tensors(path, "make it anew")
    save_file(tensors, path)  # as earlier versions did
    assert torch.equal(load_tensors(path, "")[0]["a"], tensors["a"])


@pytest.mark.parametrize("text", ["", "null", "b", "[1]", "a: [", '{"a": 1', '{"b": 1}', "a: 1\x00", "\udcff"])
@pytest.mark.parametrize("name", ["config.yaml", "provenance.json"])
def test_a_damaged_mapping_is_refused_by_name_with_the_way_out(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=rf"{name} is damaged \(.*\); start anew$"):
        load_mapping(tmp_path / name, "start anew", ("a",))


def test_a_missing_mapping_is_refused_with_the_way_out(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"config\.yaml is missing; start anew"):
        load_mapping(tmp_path / "config.yaml", "start anew")


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json"])
def test_a_saved_mapping_comes_back(tmp_path: Path, name: str):
    mapping = {"a": {"b": [1, 2.5, None, True]}, "c": "a: # b"}
    save_mapping(tmp_path / name, mapping)
    assert load_mapping(tmp_path / name, "", ("a", "c")) == mapping


def test_a_damaged_resume_file_is_refused_by_name(tmp_path: Path):
    module, optimizer = trained()
    save_resume(tmp_path, 7, module, optimizer)
    path = tmp_path / store.RESUME
    whole, (mapped, metadata) = path.read_bytes(), load_tensors(path, "")
    tensors = {name: tensor.clone() for name, tensor in mapped.items()}
    for kept in (0, 4, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"resume\.safetensors is damaged or truncated .*delete it to train from the"):
            load_resume(tmp_path, module, optimizer)
    tensors.pop("crc32")  # as in a state of an earlier version
    for changed, message in (
        ({"model.weight": torch.zeros(5)}, r"weight is \(5,\) instead of \(2, 3\)"),
        ({"rng.cpu": None}, "no training state"),
        ({"model.bias": torch.tensor([1.0, torch.nan])}, r"not finite \(model.bias\)"),
    ):
        save_file({n: t for n, t in (tensors | changed).items() if t is not None}, path, metadata)
        with pytest.raises(ValueError, match=message):
            load_resume(tmp_path, module, optimizer)


@pytest.mark.parametrize("place", ["weight", "optimiser"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_state_that_is_not_finite_is_not_written(tmp_path: Path, place: str, value: float):
    module, optimizer = trained()
    save_resume(tmp_path, 7, module, optimizer)
    before = (tmp_path / store.RESUME).read_bytes()
    tensor = module.bias.data if place == "weight" else optimizer.state[module.bias]["exp_avg"]
    tensor[1] = value
    with pytest.raises(ValueError, match=r"is not written: (model|optimizer).* is not finite after step 8"):
        save_resume(tmp_path, 8, module, optimizer)
    assert (tmp_path / store.RESUME).read_bytes() == before


def test_tensors_that_are_not_finite_are_named():
    good, bad = torch.zeros(3), torch.tensor([0.0, -torch.inf])
    assert not_finite({"a": good, "b": bad, "c": torch.tensor([2**40]), "d": bad.half()}) == ["b", "d"]
    assert not_finite({}) == []


def saved_twice(run: Path) -> nn.Module:
    """States of step 5 and of step 10; returns the model of step 5."""
    module, optimizer = trained()
    save_resume(run, 5, module, optimizer)
    first = copy.deepcopy(module)
    with torch.no_grad():
        module.weight += 1
    save_resume(run, 10, module, optimizer)
    return first


def damage(path: Path, how: str) -> None:
    contents = path.read_bytes()
    match how:
        case "cut":
            path.write_bytes(contents[:-9])
        case "one bit":  # of the last number, where nothing else tells
            path.write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
        case "empty":
            path.write_bytes(b"")
        case "not finite":
            tensors, metadata = load_tensors(path, "")
            save_file(tensors | {"model.bias": torch.tensor([torch.nan, 0.0])}, path, metadata)
        case "no step":
            save_file(load_tensors(path, "")[0], path)
        case "gone":
            path.unlink()


@pytest.mark.parametrize("how", ["cut", "one bit", "empty", "not finite", "no step", "gone"])
def test_a_broken_last_state_falls_back_to_the_one_before_with_a_note(tmp_path: Path, how: str, capsys):
    """Gone: a power cut between the two renames."""
    first = saved_twice(tmp_path)
    damage(tmp_path / "resume.safetensors", how)
    module, optimizer = trained()
    assert load_resume(tmp_path, module, optimizer) == 5
    assert torch.equal(module.weight, first.weight)
    told = capsys.readouterr().err
    assert told == "" if how == "gone" else told.startswith("note: ") and "from the state saved before it" in told
    assert load_resume(tmp_path, module, optimizer) == steps_done(tmp_path) == 5 and capsys.readouterr().err == ""


def test_two_broken_states_are_refused_by_name(tmp_path: Path):
    saved_twice(tmp_path)
    for path in tmp_path.glob("resume*"):
        damage(path, "cut")
    with pytest.raises(ValueError, match=r"resume_before\.safetensors is damaged or truncated"):
        load_resume(tmp_path, *trained())
    with pytest.raises(ValueError, match=r"resume\.safetensors is damaged or truncated"):
        steps_done(tmp_path)


def test_a_state_that_cannot_be_written_leaves_both_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved_twice(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_resume(tmp_path, 15, *trained())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
