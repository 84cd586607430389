"""Does a checkpoint reproduce DINO-WM's PointMaze number? python scripts/reproduce.py model_name=point_maze

Runs DINO-WM's protocol with plan.py, then says what the paper has, what this run has, and whether they are consistent. Takes
every setting of plan.py (n_evals=50, max_iter=20, device=cuda, -m model_name=a,b; python plan.py --help lists them). Writes
reproduction.md and reproduction.json next to plan.py's results. The exit status is 0 for every verdict.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.utils import instantiate

from wmbench.commands import CONF, fail
from wmbench.evaluation.results import Result, find_summaries, read_asked, sentence
from wmbench.files import write_text
from wmbench.reports.published import RULE, paper_row, verdict
from wmbench.runs.build import ACTION_DIM
from wmbench.training.trainee import autocast

ROOT = Path(__file__).parents[1]
RETRAIN = "python train.py experiment=dino_wm env.data=data/point_maze.h5"
TOKENS, EMBED_DIM = 196, 384  # of a frame through DINOv2 ViT-S/14 at 196 pixels, the paper's encoder


def main() -> None:
    overrides = sys.argv[1:]
    if {"--help", "-h"} & set(overrides):
        return print(__doc__)
    if fixed := [o for o in overrides if o.startswith(("protocol=", "--config-name", "-cn"))]:
        fail(f"the paper's number belongs to protocol {paper_row()['protocol']}; leave {fixed[0]} out")
    output = Path(next((o.partition("=")[2] for o in overrides if o.startswith("output_dir=")), "plan_outputs"))
    before = len(read_asked(output))
    code = subprocess.call([sys.executable, str(ROOT / "plan.py"), "--config-name", "plan_point_maze.yaml", *overrides])
    if code:
        sys.exit(code)  # plan.py has said why
    summaries, asked = find_summaries(output), read_asked(output)[before:]
    judged = [s for s in summaries if s["folder"] in asked and not Result.of(s).row.is_baseline]
    if not judged:
        fail(f"plan.py left no result of a trained model in {output}; model_name= names a run, not a floor or the ceiling")
    for summary in judged:
        report = judge(summary, summaries, overrides)
        if report["verdict"].startswith("not"):
            report["retraining"] = {"command": RETRAIN, "hours": retraining_hours(torch.device(summary["device"]))}
        folder = Path(summary["folder"])
        write_text(folder / "reproduction.json", json.dumps(report, indent=2) + "\n")
        write_text(folder / "reproduction.md", to_markdown(report))
        print(f"\n{to_markdown(report)}\nwrote {folder / 'reproduction.md'} and {folder / 'reproduction.json'}")


def judge(summary: dict[str, Any], summaries: list[dict[str, Any]], overrides: list[str]) -> dict[str, Any]:
    """The verdict on a result and all that it rests on; floors and ceiling are those under the same conditions."""
    paper, result = paper_row(), Result.of(summary)
    solved, tasks = round(summary["success"] * summary["n_tasks"]), summary["n_tasks"]
    rates = ("success", "success_low", "success_high", "n_tasks")
    others = map(Result.of, summaries)
    same = [o for o in others if o.row.is_baseline and not o.conditions.differences(result.conditions)]
    return {
        "verdict": verdict(paper["success"], solved, tasks),
        "model": summary["row"],
        "expected": {key: paper[key] for key in ("row", "paper", "table", *rates)},
        "observed": {key: summary[key] for key in rates},
        "sentence": sentence(summary),
        "floors": {other.row.row: other.score.success for other in same},
        "max_rounds": result.conditions.protocol["max_rounds"],
        "alpha": (result.conditions.objective or {})["alpha"],
        "overrides": overrides,
        **{key: summary.get(key) for key in ("tasks_hash", "weights_hash", "step", "encoder_source", "renderer", "device")},
    }


def to_markdown(report: dict[str, Any]) -> str:
    expected, rounds, floors = report["expected"], report["max_rounds"], report["floors"]
    solved = round(expected["success"] * expected["n_tasks"])
    facts = {
        "expected": f"{expected['success']:.1%}, {solved} of {expected['n_tasks']} tasks ({expected['row']}; "
        f"{expected['paper']}, Table {expected['table']}); that number's own 95% interval is "
        f"{expected['success_low']:.1%} to {expected['success_high']:.1%}",
        "observed": report["sentence"],
        "floors and ceiling": ", ".join(f"{row} {rate:.1%}" for row, rate in floors.items()) or "not run (baselines=false)",
        "rounds": f"{'without limit' if rounds is None else f'at most {rounds}'}; the original has no limit",
        "tasks": f"{report['observed']['n_tasks']}, set {report['tasks_hash']}",
        "weights": f"{report['weights_hash']}, step {report['step']}; encoder: {report['encoder_source']}",
        "frames drawn by": report["renderer"],
        "alpha": f"{report['alpha']} (weight of proprio in the objective; 0 in the original)",
        "given settings": " ".join(report["overrides"]),
    }
    table = ["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in facts.items())]
    paragraphs = [f"## {report['model']}: {report['verdict']}", "\n".join(table), RULE]
    if "random" in floors:
        rate = f"{floors['random']:.1%}"
        paragraphs.append(f"Random actions solve {rate} of these tasks in as many rounds: a high rate alone proves little.")
    if "retraining" in report:
        hours = f"{report['retraining']['hours']:,.0f} hours on {report['device']}"
        paragraphs += [
            "To train the paper's model anew:",
            f"    {report['retraining']['command']}",
            f"An estimate from one measured training step of its predictor: {hours}, plus the encoder's pass over the "
            "frames (some 40% more by FLOPs). The original takes 30 to 70 GPU-hours.",
        ]
    return "\n\n".join(paragraphs) + "\n"


def retraining_hours(device: torch.device) -> float:
    """Hours of the predictor in the recipe's steps, from one measured step; on a CPU of one window, scaled to a batch."""
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        cfg = hydra.compose("train", ["experiment=dino_wm"])
    predictor = instantiate(
        cfg.predictor,
        dim=EMBED_DIM + cfg.proprio_embed_dim,
        num_tokens=TOKENS,
        num_hist=cfg.num_hist,
        action_dim=cfg.frameskip * ACTION_DIM,
    ).to(device)
    windows = cfg.training.batch_size if device.type == "cuda" else 1
    z = torch.randn(windows, cfg.num_hist, TOKENS, predictor.dim, device=device)
    action = torch.randn(windows, cfg.num_hist, cfg.frameskip * ACTION_DIM, device=device)
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        with autocast(device):
            loss = predictor(z, action).square().mean()
        loss.backward()
        loss.item()
        seconds = time.perf_counter() - began
    return seconds * cfg.training.batch_size / windows * cfg.training.max_steps / 3600


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # the command that ran has said what is kept
