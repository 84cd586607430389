"""The commands as a user types them, end to end at tiny size."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import ENVIRONMENT, PLAN, ROOT, TRAIN, refuse, run, start
from in_process import refuse_here, run_here


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a data set and two trained runs."""
    folder = tmp_path_factory.mktemp("work")
    run(
        folder,
        "scripts/collect.py env=point_maze env.renderer=warp num_episodes=16 image_size=64 store_every=5 output=maze.h5 "
        "num_workers=1",
    )
    run(folder, f"{TRAIN} env.data=maze.h5 training.max_steps=4 training.save_every=2 model_name=first")
    run(folder, f"{TRAIN} env.data=maze.h5 training.max_steps=2 seed=1 encoder=state")
    return folder


def test_training_writes_a_run_with_its_weights_metrics_and_provenance(work):
    folder = work / "checkpoints" / "outputs" / "first"
    assert {path.name for path in folder.glob("step_*")} == {"step_000002.safetensors", "step_000004.safetensors"}
    assert [row["step"] for row in csv.DictReader((folder / "metrics.csv").open())] == ["4"]
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["data"]["renderer"] == "warp"
    assert provenance["data"]["hash"] == json.loads((work / "maze.manifest.json").read_text())["hash"]


def test_a_run_is_named_after_environment_encoder_arm_and_seed(work):
    assert (work / "checkpoints" / "outputs" / "point_maze_state_native_s1" / "probe.safetensors").exists()


def test_training_again_changes_nothing_and_other_settings_are_refused(work):
    weights = (work / "checkpoints/outputs/first/step_000004.safetensors").read_bytes()
    same = f"{TRAIN} env.data=maze.h5 training.max_steps=4 training.save_every=2 model_name=first"
    run_here(work, same)
    assert (work / "checkpoints/outputs/first/step_000004.safetensors").read_bytes() == weights
    assert "training.lr" in refuse_here(work, f"{same} training.lr=0.1")


def test_planning_writes_summary_tasks_config_and_a_video_and_compare_tabulates_them(work):
    out = run(work, f"{PLAN} model_name=first output_dir=plans")
    assert "of 3 tasks" in out and "at most about" in out
    (folder,) = (work / "plans").glob("*_first_demo")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["n_tasks"] == 3
    assert 0 <= summary["success_low"] <= summary["success"] <= summary["success_high"] <= 1
    assert len(list(csv.DictReader((folder / "tasks.csv").open()))) == 3
    assert (folder / "config.yaml").exists() and (folder / "paths.png").exists()
    assert [path.stat().st_size > 5000 for path in (folder / "videos").glob("*.mp4")] == [True]

    assert "random" in run(work, "scripts/compare.py plans")
    rows = list(csv.DictReader((work / "plans" / "table.csv").open()))
    assert {row["row"] for row in rows} == {"first", "random", "zero", "simulator"}
    assert {row["protocol"] for row in rows} == {"demo"} and {row["n_tasks"] for row in rows} == {"3"}
    assert len({row["tasks_hash"] for row in rows}) == 1
    assert (work / "plans" / "table.md").exists() and (work / "plans" / "table.html").exists()


@pytest.mark.slow  # test_scores has it for every chunk, without commands
def test_a_plan_is_the_same_in_other_chunks_and_from_another_folder(work, tmp_path):
    outcomes = []
    for memory, folder in ((0.0003, work), (4.0, tmp_path)):
        base = work / "checkpoints"
        run_here(
            folder,
            f"{PLAN} model_name=first baselines=false output_dir=o{memory} agent.memory_gb={memory} ckpt_base_path={base}",
        )
        (result,) = (folder / f"o{memory}").glob("*/tasks.csv")
        outcomes.append(result.read_text())
    assert outcomes[0] == outcomes[1]


@pytest.mark.slow  # commands/test_sweeps.py has sweeps, evaluation/test_plan_again.py plans
def test_a_sweep_plans_with_several_runs(work):
    run(work, f"{PLAN} -m model_name=first,point_maze_state_native_s1 baselines=false output_dir=sweep num_videos=0")
    assert len(list((work / "sweep").glob("*/summary.json"))) == 2
    run_here(work, f"{PLAN} model_name=point_maze_st* baselines=false output_dir=globbed num_videos=0")
    assert len(list((work / "globbed").glob("*point_maze_state_native_s1_demo/summary.json"))) == 1


def test_the_command_line_of_the_ancestor_plans_by_its_protocol(work):
    shutil.copytree(work / "checkpoints/outputs/first", work / "old/outputs/point_maze", dirs_exist_ok=True)
    config = work / "old/outputs/point_maze/config.yaml"
    config.write_text(config.read_text().replace("model_name: first", "model_name: point_maze"))
    command = "plan.py --config-name plan_point_maze.yaml model_name=point_maze n_evals=2 max_iter=1 num_videos=0"
    small = "planner.num_samples=8 planner.topk=3 planner.opt_steps=2 baselines=false output_dir=ancestor"
    run_here(work, f"{command} {small} ckpt_base_path={work / 'old'}")
    (summary,) = (work / "ancestor").glob("*/summary.json")
    summary = json.loads(summary.read_text())
    assert summary["protocol"] == "dino_wm" and summary["n_tasks"] == 2 and summary["max_steps"] == 25


def test_data_are_looked_for_in_dataset_dir(work, monkeypatch):
    (work / "sets").mkdir(exist_ok=True)
    os.link(work / "maze.h5", work / "sets" / "point_maze.h5")
    monkeypatch.setenv("DATASET_DIR", "sets")
    run_here(work, f"{TRAIN} training.max_steps=1 model_name=from_dir")
    assert (work / "checkpoints/outputs/from_dir/step_000001.safetensors").exists()


def test_training_stopped_by_ctrl_c_ends_as_if_it_had_not_been(work):
    command = f"{TRAIN} env.data=maze.h5 training.max_steps=30 training.save_every=5 training.valid_every=5"
    run(work, f"{command} model_name=whole")
    process = start(work, f"{command} model_name=stopped")
    folder = work / "checkpoints" / "outputs" / "stopped"
    while not (folder / "step_000010.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert "the same command goes on from it" in err and process.returncode == 130
    assert not (folder / "step_000030.safetensors").exists()
    run(work, f"{command} model_name=stopped")
    assert (folder / "step_000030.safetensors").read_bytes() == (
        work / "checkpoints/outputs/whole/step_000030.safetensors"
    ).read_bytes()
    columns = ("step", "loss", "valid_prediction")
    rows = [
        [tuple(row[c] for c in columns) for row in csv.DictReader((run_folder / "metrics.csv").open())]
        for run_folder in (folder, work / "checkpoints/outputs/whole")
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train.py encoder=lewm_smal", "unknown encoder 'lewm_smal', did you mean lewm_small"),
        ("train.py training.max_step=3", "unknown key 'training.max_step', did you mean training.max_steps"),
        ("train.py env.data=nowhere.h5", "no data set at nowhere.h5; make one with: python scripts/collect.py"),
        ("train.py env.data=maze.h5 frameskip=3", "frameskip (3) must be a multiple of the 5 steps"),
        ("train.py env.data=maze.h5 proprio=speed", "unknown proprio 'speed'; known: none, velocity, full"),
        ("train.py env.data=maze.h5 ckpt_base_path=maze.h5", "maze.h5"),
        ("plan.py model_name=second", "no run 'second' in checkpoints/outputs or checkpoints; found: first"),
        ("plan.py model_name=first env.renderer=egl", "drawn by warp, not egl"),
        ("plan.py model_name=first checkpoint=3", "no weights of step 3; saved: step_000002, step_000004"),
        ("plan.py model_name=first planner.num_elites=400", "num_elites (400) must not exceed num_samples (64)"),
        ("plan.py model_name=first agent.num_taken=9", "agent.num_taken (9) must be between 1 and horizon (7)"),
        ("scripts/collect.py output=maze.h5/x.h5", "maze.h5"),
        ("scripts/collect.py env.maze=spiral output=x.h5", "unknown maze 'spiral'; known: umaze"),
        ("scripts/collect.py env.renderer=vulkan output=x.h5", "unknown renderer 'vulkan'; known: auto, egl, osmesa, warp"),
    ],
)
def test_bad_input_gets_one_clear_line(work, command, expected):
    assert expected in refuse_here(work, command)


REFUSED_BY_A_PROCESS = {
    "train.py training.max_steps=many": "training.max_steps ('many') must be a whole number",
    "plan.py": "which model? model_name=NAME; found: first",
    "scripts/collect.py output=maze.h5": "maze.h5 holds other data",
    "scripts/compare.py nowhere": "no folder nowhere; plan first",
}


@pytest.mark.parametrize("command", REFUSED_BY_A_PROCESS)
def test_a_process_with_bad_input_prints_one_clear_line_and_fails(work, command):
    assert REFUSED_BY_A_PROCESS[command] in refuse(work, command)


def test_help_tells_what_a_command_does_with_every_setting_and_choice(work):
    text = run(work, "train.py --help")
    assert text.startswith("Train a world model on recorded episodes")
    assert "frames that the predictor sees" in text and "lewm_small       LeWM with a convolutional trunk" in text
    assert "protocol:" not in text and "protocol:" in run_here(work, "plan.py --help")


def test_truncated_data_are_refused_and_left_alone(work):
    shutil.copy(work / "maze.h5", work / "short.h5")
    os.truncate(work / "short.h5", 10_000)
    assert "short.h5 cannot be read as HDF5: it is truncated" in refuse_here(
        work, "train.py env.data=short.h5 model_name=short"
    )
    assert not (work / "checkpoints/outputs/short").exists()


def test_the_worked_example_of_the_readme_adds_an_encoder(work, tmp_path):
    for name in ("src", "conf", "tests", "train.py", "plan.py", "pyproject.toml"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    readme = (ROOT / "README.md").read_text()
    (module,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    (config,) = re.findall(r"```yaml\n(.*?)```", readme, re.S)
    places = re.findall(r"[Ii]n `((?:src|conf)/[^`]*mean_colour[^`]*)`", readme)
    assert len(places) == 2
    for place, text in zip(places, (module, config), strict=True):
        (tmp_path / place).write_text(text)
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path / "src")}
    small = ["predictor.depth=1", "training.max_steps=2", "training.batch_size=4", "training.valid_batches=1"]
    for command in (
        ["train.py", "encoder=mean_colour", f"env.data={work / 'maze.h5'}", "device=cpu", *small],
        [*PLAN.split(), "model_name=point_maze_mean_colour_native_s0", "baselines=false"],
        ["-m", "pytest", "-q", "tests/encoders/test_contract.py", "-k", "mean_colour"],
    ):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)
    (summary,) = (tmp_path / "plan_outputs").glob("*/summary.json")
    assert json.loads(summary.read_text())["encoder"] == "MeanColour"
