"""The whole loop in minutes on a laptop: collect, train, plan, compare, report. Run it again and it goes on where it was.

Every step is a command that you could type; it is printed before it runs.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

from wmbench.commands import duration, fail
from wmbench.evaluation.figures import success_figure, training_figure
from wmbench.evaluation.page import Page
from wmbench.evaluation.results import find_summaries, sentence
from wmbench.evaluation.table import make_table, to_html, to_markdown, write_table

ROOT = Path(__file__).parents[1]
ROWS = ("lewm_small", "state")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-episodes", type=int, default=1000, help="episodes of 100 steps to collect (default 1000)")
    parser.add_argument("--steps", type=int, help="optimiser steps of each model (default: its own recipe's)")
    parser.add_argument("--num-tasks", type=int, default=100, help="tasks to plan (default 100)")
    parser.add_argument("--folder", type=Path, default=Path("."), help="where data/, checkpoints/ and plan_outputs/ go")
    arguments = parser.parse_args()
    began = time.perf_counter()
    data = arguments.folder / "data" / "demo.h5"
    checkpoints = arguments.folder / "checkpoints" / "demo"
    plans = arguments.folder / "plan_outputs" / "demo"

    # Every fifth frame is stored, since the model looks at no other; 64 pixels are enough to see the ball.
    run(
        "scripts/collect.py env=point_maze env.renderer=warp image_size=64 store_every=5",
        f"num_episodes={arguments.num_episodes} seed=0 output={data}",
    )
    steps = f"training.max_steps={arguments.steps}" if arguments.steps else ""
    for row in ROWS:
        if not (checkpoints / "outputs" / row / "probe.safetensors").exists():
            where = f"env.data={data} model_name={row} ckpt_base_path={checkpoints}"
            run(f"train.py env=point_maze encoder={row} seed=0", where, steps)
    planned = {summary["row"] for summary in find_summaries(plans)}
    for row in ROWS:
        if row not in planned:
            where = f"ckpt_base_path={checkpoints} output_dir={plans} tasks_dir={arguments.folder / 'data' / 'tasks'}"
            run(f"plan.py model_name={row} protocol=demo protocol.num_tasks={arguments.num_tasks}", where)
    table = make_table(find_summaries(plans))
    write_table(table, plans)
    write_report(plans, checkpoints)
    print(f"\n{to_markdown(table)}")
    print(f"report: {plans / 'report.html'} (opens in a browser)")
    print(f"table:  {plans / 'table.csv'}\n{duration(time.perf_counter() - began)} in all")


def run(*words: str) -> None:
    """Run one of the project's own commands with this Python."""
    command = " ".join(word for word in words if word)
    print(f"\n$ python {command}", flush=True)
    script, *rest = shlex.split(command)
    code = subprocess.call([sys.executable, str(ROOT / script), *rest])
    if code:
        fail("the demo stopped; run it again to go on from here", code)


def write_report(plans: Path, checkpoints: Path) -> None:
    """One page: the table, success over time, what the model saw and did, and how it was trained."""
    table = make_table(find_summaries(plans))
    summaries = {summary["row"]: summary for summary in find_summaries(plans)}
    best = summaries[ROWS[0]]
    results = Path(best["folder"])
    page = Page("wmbench demo: planning in the latent space of a world model")
    page.text(sentence(best) + ", none of which is solved at its start, within 50 env steps (2.5 s).")
    page.text(
        "The model sees 64-pixel frames of a ball in a maze and learns, from random actions alone, to predict how its own "
        "latents change. To act it searches for actions whose predicted latent is close to the goal's."
    )
    page.section("Results")
    page.raw(to_html(table))
    page.text(
        "Grey rows are floors (random actions, doing nothing) and the ceiling (the simulator itself as the model, under the "
        "same planner). 'state' is a world model whose latent is the true state. All rows solve the same tasks. p vs best: "
        "exact McNemar test on these tasks; above 0.05 two rows cannot be told apart."
    )
    success_figure(plans / "success.png", table)
    page.picture(plans / "success.png", "Tasks solved by each step")
    page.section("What it does")
    page.text(
        "Left the plan at that moment (yellow: where the model imagines the ball at the end of each planned block, read "
        "linearly from its latents), middle what happened, right the goal frame with the success radius."
    )
    for video in sorted((results / "videos").glob("*.mp4")):
        page.video(video, video.stem.replace("_", " "))
    page.picture(results / "paths.png", "Paths of the first tasks: start green, goal red")
    page.section("How it was trained")
    training_figure(plans / "training.png", checkpoints / "outputs" / ROWS[0] / "metrics.csv")
    caption = f"{ROWS[0]}: the ball's position can be read from a frame's latent with R2 {best['position_r2']:.4f}"
    page.picture(plans / "training.png", caption)
    page.write(plans / "report.html")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # the command that ran has said what is kept
