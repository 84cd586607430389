"""The whole loop in minutes on a laptop: collect, train, plan, compare, report. Run it again and it goes on where it was.

Every step is a command that you could type; it is printed before it runs.
"""

import shlex
import time
from pathlib import Path

from wmbench.commands import Arguments, door, fail, run_command

ROWS = ("lewm_small", "state")


@door
def main() -> None:
    parser = Arguments(description=__doc__)
    parser.add_argument("--num-episodes", type=int, default=1000, help="episodes of 100 steps to collect (default 1000)")
    parser.add_argument("--steps", type=int, help="optimiser steps of each model (default: its own recipe's)")
    parser.add_argument("--num-tasks", type=int, default=100, help="tasks to plan (default 100)")
    parser.add_argument("--folder", type=Path, default=Path("."), help="where data/, checkpoints/ and plan_outputs/ go")
    arguments = parser.parse_args()
    from wmbench.evaluation.results import find_summaries  # after --help, which does not wait for PyTorch
    from wmbench.machine import duration
    from wmbench.reports.demo import write_demo
    from wmbench.reports.table import to_markdown

    began = time.perf_counter()
    data, checkpoints = arguments.folder / "data" / "demo.h5", arguments.folder / "checkpoints" / "demo"
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
    table, report = write_demo(plans, ROWS, arguments.num_tasks)
    print(f"\n{to_markdown(table)}\nreport: {report} (opens in a browser)\ntable:  {plans / 'table.csv'}")
    print(f"{duration(time.perf_counter() - began)} in all")


def run(*words: str) -> None:
    """Run one of the project's own commands with this Python."""
    command = " ".join(word for word in words if word)
    print(f"\n$ python {command}", flush=True)
    if code := run_command(shlex.split(command)):
        fail("the demo stopped; run it again to go on from here", code)


if __name__ == "__main__":
    main()
