"""What doctor.py says of machines that lack something."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wmbench.commands import doctor
from wmbench.commands.doctor import Finding
from wmbench.commands.libraries import torch_facts

ROOT = Path(__file__).parents[1]


def test_where_nothing_is_installed_it_says_what_is_missing_for_what_and_the_remedy_of_each(tmp_path: Path):
    bare = [sys.executable, "-S", "-E", str(ROOT / "scripts" / "doctor.py")]
    done = subprocess.run(bare, capture_output=True, text=True, env={"HF_HUB_OFFLINE": "1", "PATH": ""}, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    for name in ("packages", "memory", "git", "ffmpeg", "network", "torch", "renderer egl", "renderer warp", "weights"):
        assert f"\nlacks {name} " in done.stdout, done.stdout
    assert done.stdout.count("\nlacks ") == done.stdout.count("without it: no ") == done.stdout.count("; remedy: ")
    assert done.stderr == (
        "error: nothing works here yet for want of: packages, torch, renderer egl, renderer osmesa, renderer warp\n"
    )


def test_what_is_well_takes_a_line_and_what_is_not_two():
    assert doctor.in_words(Finding("git", "2.39")) == "ok    git              2.39"
    assert doctor.in_words(Finding("git", "none", "commit", "install git")).endswith("it: no commit; remedy: install git")


def test_a_renderer_is_missed_only_for_what_it_drew_unless_there_is_no_other():
    dark, warp = (None, "no library"), ("cpu", "")
    one = list(doctor.renderers({"egl": dark, "warp": warp}))
    assert [finding.lacks for finding in one] == ["planning or training with frames that egl drew", ""]
    none = list(doctor.renderers({"egl": dark, "warp": dark}))
    assert [(finding.lacks, finding.needed) for finding in none] == [("frame at all", True)] * 2


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('noise'); print(); print('[1, 2]')", ([1, 2], "")),
        ("import os; os.kill(os.getpid(), 11)", (None, "it crashed with signal 11")),
        ("raise OSError('libGL.so: no such file; and so on')", (None, "libGL.so: no such file")),
        ("raise SystemExit(3)", (None, "exit status 3")),
        ("import time; time.sleep(60)", (None, "no answer within 0.5 s")),
    ],
)
def test_whatever_a_library_does_there_is_an_answer(code: str, expected: tuple, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.5 if "sleep" in code else 30)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-S", "-c", code], **pipes) as process:
        assert doctor.answer(process) == expected


def fail(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    ("find", "broken"),
    [
        (lambda: doctor.disk(Path(".")), "shutil.disk_usage"),
        (lambda: doctor.program("git", ["git"], "commit", "install git"), "subprocess.run"),
        (doctor.ffmpeg, "subprocess.run"),
        (doctor.memory, "psutil.virtual_memory"),
        (doctor.network, "wmbench.commands.doctor.urlopen"),
        (lambda: doctor.safely("packages", doctor.packages), "importlib.metadata.requires"),
    ],
)
def test_what_the_system_refuses_is_told_and_no_crash(find: Callable, broken: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(broken, fail)
    finding = find()
    assert "Permission denied" in finding.found and finding.lacks and finding.remedy


def test_a_machine_without_gpu_says_why_and_what_would_help():
    facts = {"version": "2.6", "threads": 2, "cuda": "12.4", "mps": False, "gpus": [], "why": "driver too old"}
    found = list(doctor.torch((facts, "")))
    assert not found[0].lacks and "driver too old" in found[1].found and "nvidia-smi" in found[1].remedy
    assert not list(doctor.torch((facts | {"gpus": ["H100"]}, "")))[1].lacks
    assert next(doctor.torch((None, "No module named 'torch'"))).needed
    late = next(doctor.torch((None, "no answer within 90 s")))  # not for want of anything, as far as is known
    assert late.lacks and not late.needed and late.remedy.startswith("try again when this machine is less busy; if ")


def test_what_it_says_of_torch_is_true():
    facts = torch_facts()
    assert facts["version"] == torch.__version__ and len(facts["gpus"]) == torch.cuda.device_count()


def test_weights_that_are_not_here_are_named_with_the_command_that_gets_them():
    finding = doctor.weights_kept(({"dinov2": True, "mae": False}, ""))
    assert "dinov2" in finding.found and "encoder=mae" in finding.lacks and "fetch.py" in finding.remedy


@pytest.mark.slow
def test_this_machine_is_well_enough_for_the_demo(tmp_path: Path):
    done = subprocess.run([sys.executable, ROOT / "scripts/doctor.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "make demo runs here" in done.stdout
    assert "ok    renderer warp" in done.stdout and "efficientnet_lite0" in done.stdout
