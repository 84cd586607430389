"""A file that cannot be written: the line names the setting or the variable that moves it."""

import errno

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


def test_one_of_several_folders_is_moved_by_their_setting():
    cfg = OmegaConf.create({"cache": {"dir": ["tokens", "/disk/tokens"]}})
    error = PermissionError(13, "Permission denied", "/disk/tokens/x.latents")
    assert told(error, cfg) == "/disk/tokens/x.latents: Permission denied; cache.dir=FOLDER moves it"


def test_a_cache_is_moved_by_its_variable(monkeypatch):
    assert denied("/home/reader").endswith("; the variable XDG_CACHE_HOME moves it")
    assert denied("/home/reader/.cache/torch").endswith("; the variable XDG_CACHE_HOME moves it")
    monkeypatch.setenv("TORCH_HOME", "/shared/torch")
    assert denied("/shared/torch/hub/checkpoints").endswith("; the variable TORCH_HOME moves it")


def test_other_errors_stay_what_they_are_on_one_line():
    assert denied("/etc/passwd") == "/etc/passwd: Permission denied"
    assert told(ValueError("too\n   small")) == "too small"


def test_a_name_that_is_too_long_is_told_with_its_length_and_no_other_disk_is_named():
    path = f"plans/{300 * 'x'}/summary.json"
    error = OSError(errno.ENAMETOOLONG, "File name too long", path)
    assert told(error, CFG).endswith("the name xxxxxxxxxxxxxxxxxxxx... has 300 bytes, too many; give a shorter one")
