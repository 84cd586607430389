"""Does a checkpoint reproduce DINO-WM's PointMaze number? python scripts/reproduce.py model_name=point_maze

Runs DINO-WM's protocol with plan.py, then says what the paper has, what this run has, and whether they are consistent. Takes
every setting of plan.py (n_evals=50, max_iter=20, device=cuda, -m model_name=a,b; python plan.py --help lists them). Writes
reproduction.md and reproduction.json next to plan.py's results. The exit status is 0 for every verdict.
"""

import json
import sys
from pathlib import Path

from wmbench.commands import door, run_command
from wmbench.files import write_text

RETRAIN = "python train.py experiment=dino_wm env.data=data/point_maze.h5"


@door
def main() -> None:
    overrides = sys.argv[1:]
    if {"--help", "-h"} & set(overrides):
        return print(__doc__)
    # after --help, which does not wait for PyTorch
    from wmbench.evaluation.results import Result, find_summaries, read_asked
    from wmbench.reports.published import paper_row
    from wmbench.reports.reproduction import judge, to_markdown

    if fixed := [o for o in overrides if o.startswith(("protocol=", "--config-name", "-cn"))]:
        raise ValueError(f"the paper's number belongs to protocol {paper_row()['protocol']}; leave {fixed[0]} out")
    output = Path(next((o.partition("=")[2] for o in overrides if o.startswith("output_dir=")), "plan_outputs"))
    before = len(read_asked(output))
    if code := run_command(["plan.py", "--config-name", "plan_point_maze.yaml", *overrides]):
        sys.exit(code)  # plan.py has said why
    summaries, asked = find_summaries(output), read_asked(output)[before:]
    judged = [s for s in summaries if s["folder"] in asked and not Result.of(s).row.is_baseline]
    if not judged:
        raise ValueError(
            f"plan.py left no result of a trained model in {output}; model_name= names a run, not a floor or the ceiling"
        )
    for summary in judged:
        report = judge(summary, summaries, overrides)
        if report["verdict"].startswith("not"):
            import torch

            from wmbench.commands.retraining import retraining_hours

            report["retraining"] = {"command": RETRAIN, "hours": retraining_hours(torch.device(summary["device"]))}
        folder = Path(summary["folder"])
        write_text(folder / "reproduction.json", json.dumps(report, indent=2) + "\n")
        write_text(folder / "reproduction.md", to_markdown(report))
        print(f"\n{to_markdown(report)}\nwrote {folder / 'reproduction.md'} and {folder / 'reproduction.json'}")


if __name__ == "__main__":
    main()
