"""The whole loop in minutes on a laptop: collect, train, plan, compare, report. Run it again and it goes on where it was.

Every step is a command that you could type; it is printed before it runs.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

from wmbench.commands import fail
from wmbench.evaluation.results import find_summaries, sentence
from wmbench.machine import duration
from wmbench.reports.report import write_report
from wmbench.reports.table import make_table, to_markdown, write_table

ROOT = Path(__file__).parents[1]
ROWS = ("lewm_small", "state")
ABOUT = (
    "The model sees 64-pixel frames of a ball in a maze and learns, from random actions alone, to predict how its own "
    "latents change. To act it searches for actions whose predicted latent is close to the goal's. The row 'state' is a "
    "world model whose latent is the true state: what could be had from perfect sight, not a comparison of two encoders "
    "alike in all else."
)


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
    planned = {(summary["row"], summary["n_tasks"]) for summary in find_summaries(plans)}
    for row in ROWS:
        if (row, arguments.num_tasks) not in planned:
            where = f"ckpt_base_path={checkpoints} output_dir={plans} tasks_dir={arguments.folder / 'data' / 'tasks'}"
            run(f"plan.py model_name={row} protocol=demo protocol.num_tasks={arguments.num_tasks}", where)
    table = make_table(find_summaries(plans))
    write_table(table, plans)
    shown = {row["row"]: row for row in table.to_dict("records") if row["n_tasks"] == arguments.num_tasks}
    intro = [f"{sentence(shown[ROWS[0]])}, none of which is solved at its start, within 50 env steps (2.5 s).", ABOUT]
    if shown[ROWS[0]]["differs_in"]:
        each = "; ".join(f"{name}: {shown[name]['differs_in']}" for name in ROWS)
        intro += [f"Besides what they see, the two models differ in how they were made. {each}."]
    report = write_report(table, plans, "wmbench demo: planning in the latent space of a world model", intro, ROWS[0])
    print(f"\n{to_markdown(table)}")
    print(f"report: {report} (opens in a browser)")
    print(f"table:  {plans / 'table.csv'}\n{duration(time.perf_counter() - began)} in all")


def run(*words: str) -> None:
    """Run one of the project's own commands with this Python."""
    command = " ".join(word for word in words if word)
    print(f"\n$ python {command}", flush=True)
    script, *rest = shlex.split(command)
    code = subprocess.call([sys.executable, str(ROOT / script), *rest])
    if code:
        fail("the demo stopped; run it again to go on from here", code)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # the command that ran has said what is kept
