"""The whole loop in minutes on a laptop: collect, train, plan, compare, report. Run it again and it goes on where it was.

Every step is a command that you could type; it is printed before it runs.
"""

import time
from pathlib import Path

from wmbench.commands import Arguments, door


@door
def main() -> None:
    parser = Arguments(description=__doc__)
    parser.add_argument("--num-episodes", type=int, default=1000, help="episodes of 100 steps to collect (default 1000)")
    parser.add_argument("--steps", type=int, help="optimiser steps of each model (default: its own)")
    parser.add_argument("--num-tasks", type=int, default=100, help="tasks to plan (default 100)")
    parser.add_argument("--folder", type=Path, default=Path("."), help="where data/, checkpoints/ and plan_outputs/ go")
    arguments = parser.parse_args()
    from wmbench.commands.demo import run_demo  # after --help, which does not wait for PyTorch
    from wmbench.machine import duration
    from wmbench.reports.table import to_markdown

    began = time.perf_counter()
    table, report = run_demo(arguments.folder, arguments.num_episodes, arguments.steps, arguments.num_tasks)
    print(f"\n{to_markdown(table)}\nreport: {report} (opens in a browser)\ntable:  {report.with_name('table.csv')}")
    print(f"{duration(time.perf_counter() - began)} in all")


if __name__ == "__main__":
    main()
