"""Whether a result reproduces DINO-WM's number on PointMaze, and all that the verdict rests on."""

from typing import Any

from wmbench.evaluation.results import Result, sentence
from wmbench.reports.formats import in_markdown
from wmbench.reports.published import RULE, paper_row, verdict


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
    table = ["| | |", "| --- | --- |", *(f"| {name} | {in_markdown(text)} |" for name, text in facts.items())]
    paragraphs = [f"## {in_markdown(report['model'])}: {report['verdict']}", "\n".join(table), RULE]
    if "random" in floors:
        rate = f"{floors['random']:.1%}"
        paragraphs.append(
            f"Random actions solve {rate} of these tasks in as many rounds: a high rate by itself proves little."
        )
    if "retraining" in report:
        hours = f"{report['retraining']['hours']:,.0f} hours on {report['device']}"
        paragraphs += [
            "To train the paper's model anew:",
            f"    {report['retraining']['command']}",
            f"An estimate from one measured training step of its predictor: {hours}, plus the encoder's pass over the "
            "frames (some 40% more by FLOPs). The original takes 30 to 70 GPU-hours.",
        ]
    return "\n\n".join(paragraphs) + "\n"
