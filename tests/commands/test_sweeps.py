"""A job that fails does not end a sweep."""

import pytest
from omegaconf import DictConfig


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
