"""What a study runs, what it does not run again, and what it says of cells that failed."""

import errno
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from in_process import compose, load_script
from omegaconf import open_dict
from pretend import Commands

from wmbench import files
from wmbench.reports import study_report
from wmbench.study import runner
from wmbench.study.grid import Study
from wmbench.study.runner import Runner, finished
from wmbench.study.status import plan_of, problems, status

ROWS = {"a": "encoder=state", "b": "encoder=pixels"}


def study(folder: Path, **changed) -> Study:
    known = {"name": "two", "seeds": [1, 2], "rows": ROWS, "evaluations": {"closed": "protocol=demo", "open": "seed=1"}}
    return Study.of(known | {"floors": ["zero"]} | changed, folder)


def run(monkeypatch, made: Study, commands: Commands, shard: str | None = None) -> Commands:
    monkeypatch.setattr(runner, "call", commands)
    Runner(made, made.shard(shard)).run()
    return commands


def test_every_cell_is_made_once_and_then_nothing_is_left_to_do(tmp_path, monkeypatch):
    made = study(tmp_path)
    calls = run(monkeypatch, made, Commands()).calls
    assert set(finished(made)) == set(made.cells)
    assert calls.count(("train.py", "a_s1")) == 1 and calls.count(("plan.py", "a_s1")) == 2  # once an evaluation
    assert not run(monkeypatch, made, Commands()).calls
    assert "nothing is left to do" in status(made, made.cells, finished(made))


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_study_that_is_stopped_at_any_command_makes_the_rest_and_no_more(tmp_path, monkeypatch, stop):
    made, first, second = study(tmp_path), Commands(stopped_at=(stop,)), Commands()
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, made, first)
    run(monkeypatch, made, second)
    assert set(finished(made)) == set(made.cells)
    whole = run(monkeypatch, study(tmp_path / "at_once"), Commands())
    assert sorted(first.calls + second.calls) == sorted(whole.calls)


def test_a_failure_is_noted_in_its_cells_and_the_rest_goes_on(tmp_path, monkeypatch):
    made = study(tmp_path)
    run(monkeypatch, made, Commands(failing=("a_s2",)))
    failed = [cell for cell in made.cells if cell not in finished(made)]
    assert [str(cell) for cell in failed] == ["a_s2 closed", "a_s2 open"]
    assert "a_s2 closed: error: model_name=a_s2: memory ran out" in status(made, made.cells, finished(made))
    run(monkeypatch, made, Commands())
    assert not list((tmp_path / "failed").iterdir())  # made now, so nothing is noted any more


def test_a_full_disk_is_one_line_that_names_the_log(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=rf"{tmp_path}/logs/data.log cannot be written: No space left .*; .* folder=FOLDER"):
        Runner(made := study(tmp_path), made.cells).run()


def test_shards_together_make_every_cell_once(tmp_path, monkeypatch):
    made = study(tmp_path)
    calls = [call for part in ("3/3", "1/3", "2/3") for call in run(monkeypatch, made, Commands(), part).calls]
    assert list(finished(made)) == made.cells  # in the same order, whichever was first
    assert len(calls) == 1 + 4 + 2 + 8  # data, trainings, floors, evaluations


def test_a_forecast_goes_by_the_file_of_the_study_until_something_is_measured(tmp_path, monkeypatch):
    made = study(tmp_path, minutes={"train": 2, "closed": 1, "open": 0.5}, run_mb=3)
    assert "left: 10 cells of 5 runs, about 15 min 30 s and 15 MB of disk (measured on the machine that" in plan_of(
        made, made.cells, finished(made)
    )
    run(monkeypatch, made, Commands(failing=("b_s1", "b_s2")))
    monkeypatch.setattr(runner.Costs, "seconds", {"train_a": 60.0, "closed_a": 2.0, "open_a": 1.0, "open_floors": 9.0})
    assert "left: 4 cells of 2 runs, about 2 min 14 s and 6 MB of disk (measured here)" in plan_of(
        made, made.cells, finished(made)
    )
    told = status(made, made.cells, finished(made))
    assert "a     2 of 2 trained (1 min 00 s each), closed 2 of 2 (2 s each), open 2 of 2 (1 s each)" in told
    assert "zero  closed 1 of 1, open 1 of 1 (9 s each)" in told


def test_data_that_cannot_be_collected_stop_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "call", lambda *given, **more: 1)
    made = study(tmp_path)
    with pytest.raises(ValueError, match=r"data.h5 could not be made: .*data.log says why"):
        Runner(made, made.cells).run()


def test_two_processes_that_are_given_the_same_cells_make_each_of_them_once(tmp_path, monkeypatch, capfd):
    made, commands = study(tmp_path), Commands()
    monkeypatch.setattr(files, "WAIT_S", 0.01)
    monkeypatch.setattr(runner, "call", lambda *given, **more: time.sleep(0.02) or commands(*given, **more))
    with ThreadPoolExecutor() as pool:  # two threads hold locks as two processes do
        for future in [pool.submit(Runner(made, made.cells).run) for _ in range(2)]:
            future.result()
    assert set(finished(made)) == set(made.cells)
    assert len(commands.calls) == len(set(commands.calls)) + 5  # each run plays two evaluations
    assert "/at_work/" in (notes := capfd.readouterr().err)
    assert f"is in use by process {os.getpid()} on " in notes
    assert not (tmp_path / "failed").exists()


def test_a_head_that_cannot_be_made_fails_its_own_rows_only(tmp_path, monkeypatch):
    rows = {"b": f"encoder=dino_tok encoder.weights={tmp_path}/heads/tok.safetensors", "a": "encoder=state"}
    made, commands = study(tmp_path, rows=rows, heads={"tok": "encoder=dino_tok"}), Commands()
    monkeypatch.setattr(
        runner, "call", lambda command, **more: 1 if "pretrain.py" in command[1] else commands(command, **more)
    )
    Runner(made, made.cells).run()
    assert {cell.row for cell in finished(made)} == {"zero", "a"}
    assert [problem.partition(" could not be made")[0] for problem in problems(made, made.cells, finished(made))] == [
        f"{run} {evaluation}: error: {tmp_path}/heads/tok.safetensors"
        for run in ("b_s1", "b_s2")
        for evaluation in ("closed", "open")
    ]


def test_a_command_that_is_stopped_by_hand_has_time_to_save(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "SAVING_S", 20)
    script = f"trap 'sleep 0.5; touch {tmp_path}/saved; exit 130' INT; touch {tmp_path}/began; sleep 60 & wait; kill $!"

    def press_ctrl_c():
        while not (tmp_path / "began").exists():
            time.sleep(0.01)
        os.killpg(child[0].pid, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    child, popen = [], runner.subprocess.Popen
    monkeypatch.setattr(
        runner.subprocess, "Popen", lambda *given, **more: child.append(popen(*given, process_group=0)) or child[0]
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    threading.Thread(target=press_ctrl_c).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            runner.call(["bash", "-c", script])
    finally:
        signal.signal(signal.SIGINT, before)
    assert child[0].returncode == 130
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("failing, status", [((), 0), (("b_s1",), 1)])
def test_the_last_line_counts_cells_and_the_exit_status_tells_of_failures(tmp_path, monkeypatch, capfd, failing, status):
    commands = Commands(failing)
    monkeypatch.setattr(runner, "call", commands)
    cfg = compose("study", f"study=demo folder={tmp_path}")
    with open_dict(cfg):
        cfg.study = {"name": "demo", "seeds": [0, 1], "rows": ROWS, "evaluations": {"open": "protocol=bench_open"}}
    study_py, ended = load_script("study.py"), 0
    monkeypatch.setattr(study_report, "write_study_report", lambda folder: folder)
    try:
        study_py.main.__wrapped__(cfg)
    except SystemExit as stopped:
        ended = stopped.code
    out, err = capfd.readouterr()
    assert ended == status
    assert out.splitlines()[-1] == f"{7 - status} of 7 cells done"
    assert ("error: b_s1 open: error: model_name=b_s1: memory ran out" in err) == bool(failing)


def test_two_studies_in_processes_on_one_folder_make_every_cell_once(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "WAIT_S", 0.01)
    made, children = study(tmp_path / "study"), []
    for number in range(2):
        children.append(os.fork())
        if not children[-1]:
            code = 1
            try:
                commands = run(monkeypatch, made, Commands())
                (tmp_path / f"calls_{number}.json").write_text(json.dumps(commands.calls))
                code = 0
            finally:
                os._exit(code)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    calls = [tuple(call) for number in range(2) for call in json.loads((tmp_path / f"calls_{number}.json").read_text())]
    assert sorted(calls) == sorted(run(monkeypatch, study(tmp_path / "alone"), Commands()).calls)
    assert set(finished(made)) == set(made.cells)
