"""Pickled checkpoints: what is in them is read as torch would read it, and nothing in them is ever run."""

import builtins
import collections
import functools
import importlib
import os
import pickle
import random
import sys
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wmbench.importers.pickles import read_checkpoint, state_dict, submodules
from wmbench.importers.stack_machine import Name, Stub
from wmbench.importers.stored_tensors import Storage, StoredTensor

STOP, PROTO, MARK, REDUCE, BUILD, EMPTY_DICT, EMPTY_TUPLE = b".", b"\x80\x02", b"(", b"R", b"b", b"}", b")"
GOLDEN_CHECKPOINT = "dino_wm_checkpoint/outputs/point_maze_tiny/checkpoints/model_latest.pth"


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def write(
    path: Path, program: bytes, members: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED
) -> Path:
    """A checkpoint with a hand-written pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in ({"data.pkl": program, "version": b"3\n"} | (members or {})).items():
            archive.writestr(f"model/{name}", content)
    return path


def write_dict(path: Path, value: bytes) -> Path:
    """A checkpoint {"epoch": value}, whose value is what a few instructions leave on the stack."""
    return write(path, PROTO + EMPTY_DICT + text("epoch") + value + b"s" + STOP)


class Pid(tuple):
    """Stands for a storage while a tensor is written by hand."""


class Rebuilt:
    """Pickles as torch writes a tensor, with whatever numbers one likes."""

    def __init__(self, *args: Any):
        self.args = args

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (*self.args, False, collections.OrderedDict())


class HandPickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return tuple(obj) if isinstance(obj, Pid) else None


def write_tensor(
    path: Path, *, numel: Any = 6, offset: Any = 0, size: Any = (2, 3), stride: Any = (3, 1), key: str = "0"
) -> Path:
    """A checkpoint {"epoch": tensor} with one storage of the floats 0 to 5."""
    program = path.with_suffix(".pkl")
    storage = Pid(("storage", torch.FloatStorage, key, "cuda:0", numel))
    with program.open("wb") as file, warnings.catch_warnings(action="ignore"):
        HandPickler(file, protocol=2).dump({"epoch": Rebuilt(storage, offset, size, stride)})
    return write(path, program.read_bytes(), {"data/0": torch.arange(6.0).numpy().tobytes()})


class Runs:
    """Runs a function as soon as a plain unpickler meets it."""

    def __init__(self, function: Callable, *args: Any):
        self.call = function, args

    def __reduce__(self):
        return self.call


def adam(**attributes: Any) -> torch.optim.Adam:
    """An optimiser as it is pickled; building a real one takes torch seconds of imports."""
    optimizer = object.__new__(torch.optim.Adam)
    vars(optimizer).update({"defaults": {}, "state": {}, "param_groups": []} | attributes)
    return optimizer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model_latest.pth"


@pytest.fixture
def nothing_imported(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Any]:
    """Reads a file while every import of a package that is not there yet fails."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        assert name.split(".")[0] in sys.modules, f"imports {name}"
        return real(name, *args, **kwargs)

    def read(path: Path) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(builtins, "__import__", refuse)
            return read_checkpoint(path)

    return read


@pytest.mark.parametrize(
    ("function", "args", "culprit"),
    [
        (os.system, ("touch MARKER",), "posix.system"),
        (eval, ("__import__('pathlib').Path('MARKER').touch()",), "builtins.eval"),
        (getattr, ("", "join"), "builtins.getattr"),
        (torch.load, ("MARKER",), "torch.serialization.load"),
        (functools.partial, (os.system, "touch MARKER"), "functools.partial"),
        (importlib.import_module, ("antigravity",), "importlib.import_module"),
        (np.zeros, (3,), "numpy.zeros"),
        (nn.Module.apply, (), "builtins.getattr"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_file_that_calls_a_function_is_refused_by_name_and_nothing_runs(
    path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable, args: tuple, culprit: str, nested: bool
):
    monkeypatch.chdir(path.parent)
    content: Any = Runs(function, *args)
    if nested:  # in an optimiser's state, where nobody would look
        content = adam(defaults={"betas": (0.9, Runs(function, *args))})
    torch.save({"epoch": 1, "predictor_optimizer": content}, path)
    with pytest.raises(ValueError, match=rf"model_latest\.pth is refused, and nothing in it was run: it names {culprit}"):
        read_checkpoint(path)
    assert not (path.parent / "MARKER").exists()


@pytest.mark.parametrize("name", ["os.system", "x.__class__.__subclasses__", "antigravity"])
def test_names_with_dots_below_a_known_package_stay_text(path: Path, nothing_imported: Callable, name: str):
    write_dict(path, named("torch.nn.modules", name) + text("touch MARKER") + b"\x85" + REDUCE)
    content = nothing_imported(path)["epoch"]
    assert type(content) is Stub and content.name == f"torch.nn.modules.{name}" and content.args == ("touch MARKER",)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("program", "culprit"),
    [
        (text("os") + text("system") + b"\x93", "STACK_GLOBAL"),
        (b"\x82\x01", "EXT1"),
        (b"\x83\x01\x00", "EXT2"),
        (b"\x84\x01\x00\x00\x00", "EXT4"),
        (MARK + b"ios\nsystem\n", "INST"),
        (MARK + named("collections", "OrderedDict") + b"o", "OBJ"),
        (b"P0\n", "PERSID"),
        (b"\x97", "NEXT_BUFFER"),
        (b"\x92", "NEWOBJ_EX"),
        (text("a") + b"Q", "something other than a tensor's storage"),
        (text("storage") + text("FloatStorage") + text("0") + b"\x87Q", "something other than a tensor's storage"),
        (text("call me") + EMPTY_TUPLE + REDUCE, "it calls a str"),
        (named("torch.nn.modules.linear", "Linear") + EMPTY_DICT + REDUCE, "it calls a Name"),
        (named("torch.nn.modules.linear", "Linear") + EMPTY_TUPLE + b"\x81" + EMPTY_TUPLE + REDUCE, "it calls a Stub"),
        (EMPTY_DICT + EMPTY_TUPLE + text("value") + b"s", "it uses a tuple as a key"),
        (text("a") + text("b") + text("c") + b"s", "it sets items of a str"),
        (text("a") + text("b") + b"a", "it appends to a str"),
        (b"h\x07", "is damaged"),
        (b"0", "uses POP"),
        (b"\x85", "is damaged"),
        (b"e", "is damaged"),
    ],
)
def test_other_instructions_are_refused(path: Path, program: bytes, culprit: str):
    with pytest.raises(ValueError, match=rf"model_latest\.pth.*{culprit}"):
        read_checkpoint(write_dict(path, program))


@pytest.mark.parametrize(
    "target",
    [
        named("collections", "OrderedDict"),
        named("torch._utils", "_rebuild_tensor_v2"),
        named("models.vit", "Attention"),
        named("torch", "FloatStorage"),
        named("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE,
        EMPTY_DICT,
        EMPTY_TUPLE,
        b"]",
    ],
)
@pytest.mark.parametrize("state", [EMPTY_DICT + text("__call__") + text("x") + b"s", EMPTY_DICT + text("x") + b"Ns"])
@pytest.mark.parametrize("with_slots", [False, True])
def test_attributes_of_nothing_but_a_stub_can_be_set(path: Path, target: bytes, state: bytes, with_slots: bool):
    before = {kind: dict(vars(kind)) for kind in (Stub, StoredTensor, Name, Storage, collections.OrderedDict)}
    state = b"N" + state + b"\x86" if with_slots else state
    with pytest.raises(ValueError, match="it sets attributes of a"):
        read_checkpoint(write_dict(path, target + state + BUILD))
    assert all(dict(vars(kind)) == names for kind, names in before.items())


def test_a_stub_keeps_its_state_apart_from_its_attributes(path: Path):
    state = EMPTY_DICT + text("name") + text("os.system") + b"s"
    made = named("models.vit", "Attention") + EMPTY_TUPLE + b"\x81" + state + BUILD
    content = read_checkpoint(write_dict(path, made))["epoch"]
    assert content.name == "models.vit.Attention" and content.state == {"name": "os.system"}
    filled = made + text("key") + b"Ns" + b"K\x05a"
    content = read_checkpoint(write_dict(path, filled))["epoch"]
    assert content.entries == {"key": None} and content.elements == [5]


def test_tensors_are_those_that_torch_reads(path: Path):
    shared = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "rows": shared[1:3],
        "transposed": shared.T,
        "strided": shared[1:, ::2],
        "scalar": torch.tensor(2.5),
        "half": torch.randn(3).half(),
        "bfloat16": torch.randn(2, 3).bfloat16(),
        "double": torch.randn(5).double(),
        "whole": torch.arange(4),
        "int": torch.arange(4).int(),
        "short": torch.arange(4).short(),
        "char": torch.arange(4).char(),
        "byte": torch.arange(4).byte(),
        "bool": torch.tensor([True, False]),
        "trained": nn.Parameter(torch.randn(2, 5)),
    }
    torch.save(tensors, path)
    content = read_checkpoint(path)
    assert content.keys() == tensors.keys()
    for name, tensor in torch.load(path, weights_only=True).items():
        found = content[name].read()
        assert found.dtype == tensor.dtype and torch.equal(found, tensor), name


def test_a_tensor_of_a_gpu_is_read_on_the_cpu(path: Path):
    tensor = read_checkpoint(write_tensor(path))["epoch"].read()
    assert tensor.device.type == "cpu" and torch.equal(tensor, torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize(
    "changed",
    [
        {"offset": 1},
        {"offset": 10**12},
        {"size": (3, 3)},
        {"size": (2, 4), "stride": (1, 1)},
        {"size": (10**9,), "stride": (0,)},
        {"size": (2**40, 2**40), "stride": (0, 0)},
        {"size": (0, 3)},
        {"stride": (4, 1)},
        {"numel": 5},
        {"numel": 7, "size": (7,), "stride": (1,)},
        {"numel": 10**15, "size": (10**15,), "stride": (1,)},
        {"key": "1"},
        {"key": "../data.pkl"},
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(path: Path, changed: dict):
    tensor = read_checkpoint(write_tensor(path, **changed))["epoch"]
    with pytest.raises(ValueError, match=r"model_latest\.pth: (tensor )?model/data"):
        tensor.read()


@pytest.mark.parametrize(
    "changed",
    [{"offset": -1}, {"size": (2, -3)}, {"stride": (3,)}, {"size": (2, "3")}, {"size": 6}, {"numel": -1}, {"offset": 2**70}],
)
def test_a_tensor_of_impossible_numbers_is_refused(path: Path, changed: dict):
    with pytest.raises(ValueError, match=r"model_latest\.pth is (refused|damaged)"):
        read_checkpoint(write_tensor(path, **changed))


@pytest.fixture
def golden_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the original's and accelerate's classes, so that torch can unpickle the golden file."""
    known = {
        "models.vit": ("ViTPredictor", "Transformer", "Attention", "FeedForward"),
        "models.vqvae": ("VQVAE", "Quantize", "Decoder", "ResBlock"),
        "models.proprio": ("ProprioceptiveEmbedding",),
        "accelerate.optimizer": ("AcceleratedOptimizer",),
        "accelerate.state": ("AcceleratorState", "GradientState"),
        "accelerate.utils.dataclasses": ("DistributedType", "TorchDynamoPlugin", "DynamoBackend"),
    }
    for module, names in known.items():
        bases = (nn.Module,) if module.startswith("models") else ()
        ways = {} if bases else {"__init__": lambda self, *args: None}
        for package in (module.rsplit(".", n)[0] for n in range(module.count(".") + 1)):
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        for name in names:
            monkeypatch.setattr(sys.modules[module], name, type(name, bases, ways), raising=False)


def test_modules_of_the_golden_file_hold_what_torch_reads(golden: Path, golden_classes: None):
    expected = torch.load(golden / GOLDEN_CHECKPOINT, weights_only=False)
    content = read_checkpoint(golden / GOLDEN_CHECKPOINT)
    assert content.keys() == expected.keys() and content["epoch"] == expected["epoch"]
    for part in ("predictor", "decoder", "action_encoder", "proprio_encoder"):
        found, tensors = state_dict(content[part]), expected[part].state_dict()
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
        assert submodules(content[part]).keys() == {name for name, _ in expected[part].named_modules()}


def test_the_golden_file_is_read_without_an_import(golden: Path, nothing_imported: Callable):
    assert nothing_imported(golden / GOLDEN_CHECKPOINT)["epoch"] == 100


def small_network() -> nn.Module:
    network = nn.Sequential(nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2))
    network.register_buffer("kept", torch.ones(4))
    network.register_buffer("forgotten", torch.ones(5), persistent=False)
    return network


def test_a_state_dict_has_buffers_that_torch_would_save_and_no_others(path: Path):
    network = small_network()
    torch.save({"network": network}, path)
    found = state_dict(read_checkpoint(path)["network"])
    assert found.keys() == network.state_dict().keys() == {"0.weight", *(f"1.{n}" for n in network[1].state_dict()), "kept"}
    assert torch.equal(found["0.weight"], network[0].weight)


@pytest.mark.parametrize("kind", ["itself", "twice", "no module", "no tensor"])
def test_a_module_that_is_no_tree_is_refused(path: Path, kind: str):
    network = small_network()
    if kind == "itself":
        network[0]._modules["again"] = network
    elif kind == "twice":
        network.add_module("again", network[0])
    elif kind == "no module":
        network._modules["again"] = [1, 2]  # type: ignore[assignment]
    else:
        network[0]._parameters["weight"] = 3  # type: ignore[assignment]
    torch.save({"network": network}, path)
    with pytest.raises(ValueError, match=r"of a torch\.nn\.modules\.container\.Sequential is no (torch module|tensor)"):
        state_dict(read_checkpoint(path)["network"])


def test_storages_of_an_optimiser_are_not_read(path: Path):
    network, moment = small_network(), torch.randn(2, 3)
    torch.save({"network": network, "optimizer": adam(state={network[0].weight: {"exp_avg": moment}})}, path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(moment.numpy().tobytes(), bytes(4 * moment.numel())))
    assert path.read_bytes() != whole
    content = read_checkpoint(path)
    assert torch.equal(state_dict(content["network"])["0.weight"], network[0].weight)
    (state,) = content["optimizer"].state["state"].values()
    with pytest.raises(ValueError, match=r"model_latest\.pth: .*data/\d+ is missing or damaged \(Bad CRC"):
        state["exp_avg"].read()


def test_other_kinds_of_files_are_refused_by_name(path: Path):
    with pytest.raises(FileNotFoundError, match=r"no file .*model_latest\.pth"):
        read_checkpoint(path)
    for content in (b"", b"no checkpoint", pickle.dumps({"epoch": 1}), pickle.dumps({"epoch": Runs(os.system, "false")})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model_latest\.pth is no checkpoint of torch 1\.6 or later, or is truncated"):
            read_checkpoint(path)
    torch.save({"epoch": 1}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"model_latest\.pth is no checkpoint of torch 1\.6 or later, or is truncated"):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r"model_latest\.pth holds a list instead of a dict"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("states.pth", b"")
    with pytest.raises(ValueError, match=r"model_latest\.pth is a zip file without one data\.pkl"):
        read_checkpoint(path)
    write(path, PROTO + EMPTY_DICT + STOP, {"byteorder": b"big"})
    with pytest.raises(ValueError, match=r"model_latest\.pth was saved with the byte order b'big'"):
        read_checkpoint(path)
    write(path, PROTO + EMPTY_DICT + STOP, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"model_latest\.pth: model/data\.pkl is missing or damaged"):
        read_checkpoint(path)


def test_deep_nesting_neither_crashes_nor_runs_out_of_stack(path: Path):
    tuples = EMPTY_TUPLE + b"\x85" * 60_000
    assert len(read_checkpoint(write_dict(path, tuples))["epoch"]) == 1
    with pytest.raises(ValueError, match="it uses a tuple as a key"):
        read_checkpoint(write_dict(path, EMPTY_DICT + tuples + b"Ns"))
    with pytest.raises(ValueError, match="it uses a tuple as a key"):
        read_checkpoint(write_dict(path, named("__builtin__", "set") + b"](" + tuples + b"e\x85" + REDUCE))


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(path: Path, seed: int):
    torch.manual_seed(0)
    torch.save({"epoch": 3, "network": small_network()}, path)
    content, chance = bytearray(path.read_bytes()), random.Random(seed)
    if seed % 2:
        del content[chance.randrange(len(content)) :]
    for _ in range(3):
        if content:
            content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)
    try:
        network = read_checkpoint(path)["network"]
    except ValueError as error:
        assert "model_latest.pth" in str(error)
    except KeyError:
        pass  # the dict's key was hit
    else:
        if isinstance(network, Stub):
            try:
                state_dict(network)
            except ValueError as error:
                assert str(error)


def test_one_storage_under_hundreds_of_names_does_not_fill_the_memory(path: Path):
    """A file of 6 numbers, or of a gigabyte, is not read once for each name."""
    write_tensor(path)
    tensor = read_checkpoint(path)["epoch"]
    shared = {"_parameters": {f"w{k}": tensor for k in range(101)}, "_buffers": {}, "_modules": {}}
    with pytest.raises(ValueError, match=r"w100 of a torch\.nn\.Linear shares one storage with 100 others"):
        state_dict(Stub(Name("torch.nn.Linear"), (), shared | {"_non_persistent_buffers_set": set()}))
