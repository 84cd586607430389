"""A file that cannot be written: the line names the setting or the variable that moves it."""

import pytest
from omegaconf import OmegaConf

from wmbench.commands import told

CFG = OmegaConf.create({"tasks_dir": "data/tasks", "output_dir": "plans", "env": {"data": "data/maze.h5"}})


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/reader")
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "WARP_CACHE_PATH", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def denied(path: str) -> str:
    return told(PermissionError(13, "Permission denied", path), CFG)


def test_a_folder_of_the_command_is_moved_by_its_setting():
    assert denied("data") == "data: Permission denied; tasks_dir=FOLDER moves it"
    assert denied("plans/x/summary.json") == "plans/x/summary.json: Permission denied; output_dir=FOLDER moves it"


def test_a_cache_is_moved_by_its_variable(monkeypatch):
    assert denied("/home/reader").endswith("; the variable XDG_CACHE_HOME moves it")
    assert denied("/home/reader/.cache/torch").endswith("; the variable XDG_CACHE_HOME moves it")
    monkeypatch.setenv("TORCH_HOME", "/shared/torch")
    assert denied("/shared/torch/hub/checkpoints").endswith("; the variable TORCH_HOME moves it")


def test_other_errors_stay_what_they_are_on_one_line():
    assert denied("/etc/passwd") == "/etc/passwd: Permission denied"
    assert told(ValueError("too\n   small")) == "too small"
