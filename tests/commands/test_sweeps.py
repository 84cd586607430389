"""A job that fails does not end a sweep, and a sweep's jobs may run in other processes."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import DictConfig

from wmbench.commands.words import read
from wmbench.machine import num_cores

SWEEP = """
import os
from pathlib import Path

from wmbench.commands import command


@command("train")
def main(cfg):
    Path("ran").write_text(str(os.getppid()))
    raise ValueError("too small")


if __name__ == "__main__":
    main()
"""


def fails_with(problems: dict[int, BaseException]):
    def job(cfg: DictConfig) -> None:
        if problem := problems.get(cfg.seed):
            raise problem

    return job


def test_a_failing_job_is_named_and_the_others_run(typed):
    swept = typed("train -m seed=0,1,2", fails_with({0: ValueError("too small"), 1: OSError("no disk")}))
    assert [cfg.seed for cfg in swept.configs] == [0, 1, 2]
    assert swept.code == 1 and "Traceback" not in swept.err
    summary = swept.err[swept.err.index("error: 2 of the sweep's jobs failed:") :]
    assert "seed=0: too small" in summary and "seed=1: no disk" in summary and "seed=2" not in summary


def test_a_fault_of_ours_in_a_job_shows_its_traceback_and_the_others_run(typed):
    swept = typed("plan -m seed=0,1 model_name=x", fails_with({0: KeyError("renderer"), 1: SystemExit(3)}))
    assert len(swept.configs) == 2 and swept.code == 1
    assert "Traceback" in swept.err and "seed=0 model_name=x: KeyError: 'renderer'" in swept.err
    assert "error: 2 of the sweep's jobs failed:" in swept.err


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 2 TiB"), RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")]
)
def test_a_lack_of_memory_anywhere_is_one_line(typed, error: BaseException):
    ran = typed("train seed=1", fails_with({1: error}))
    assert ran.code == 1 and "Traceback" not in ran.err
    assert f"error: memory ran out ({error}); other programs may hold some of it" in ran.err


def test_a_setting_that_is_refused_in_one_job_is_not_in_another(typed):
    swept = typed("train -m seed=0,abc,1")
    assert [cfg.seed for cfg in swept.configs] == [0, 1] and swept.code == 1
    assert "seed=abc: seed ('abc') must be a whole number" in swept.err


def test_a_sweep_whose_jobs_all_work_succeeds(typed):
    assert typed("train -m seed=0,1 encoder=state,pixels").code == 0


def test_ctrl_c_ends_a_sweep_and_names_what_had_failed(typed):
    swept = typed("train -m seed=0,1,2", fails_with({0: ValueError("too small"), 1: KeyboardInterrupt()}))
    assert [cfg.seed for cfg in swept.configs] == [0, 1] and swept.code == 130
    assert "seed=0: too small" in swept.err and "error: stopped" in swept.err


def test_a_job_may_compose_another_configuration(typed):
    from wmbench.commands import encoder_config

    swept = typed("train -m seed=0,1", lambda cfg: encoder_config("dinov2") and None)
    assert len(swept.configs) == 2 and swept.code == 0


def test_sigterm_stops_a_command_as_ctrl_c_does(typed):
    stopped = typed("train seed=1", lambda cfg: os.kill(os.getpid(), signal.SIGTERM))
    assert stopped.code == 130 and "error: stopped; nothing that was saved is lost" in stopped.err


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_in_a_process_of_its_own_runs_and_tells_what_went_wrong(tmp_path: Path, launcher: str):
    package = f"hydra_{launcher.partition('_')[0]}_launcher"
    pytest.importorskip(f"hydra_plugins.{package}", reason=f"pip install {package.replace('_', '-')}")
    (tmp_path / "sweep.py").write_text(SWEEP)
    command = [sys.executable, "sweep.py", "seed=1", f"hydra/launcher={launcher}"]  # -m is understood
    swept = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert swept.returncode == 1 and "Traceback" not in swept.stderr
    summary = swept.stderr[swept.stderr.index("error: 1 of the sweep's jobs failed:") :]
    assert "seed=1: too small" in summary
    assert int((tmp_path / "ran").read_text()) != os.getpid()  # the sweep's own process is our child, its job is not


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is here")
@pytest.mark.parametrize("launcher", ["ray", "ray_tasks"])
def test_a_launcher_that_is_not_here_names_its_package(typed, launcher: str):
    assert "pip install hydra-ray-launcher" in typed(f"train -m seed=0,1 hydra/launcher={launcher}").error


def test_a_launcher_gives_a_study_a_part_per_core_unless_shards_are_named(typed, capsys):
    cores = num_cores()
    assert (
        read(["study=demo", "hydra/launcher=cores"], "study")[-1]
        == f"shard={','.join(f'{k + 1}/{cores}' for k in range(cores))}"
    )
    assert read(["shard=1/3,2/3", "hydra/launcher=slurm"], "study") == ["-m", "shard=1/3,2/3", "hydra/launcher=slurm"]
    assert "say how many: shard=1/4" in typed("study hydra/launcher=slurm").error
