"""Every benchmark on this machine, and the table of docs/benchmarks.md: python benchmarks/everything.py device=cpu

Runs the parts of planning.py, training.py and rendering.py by their value, and on a GPU at last the tests that need one.
After each part its figures are in docs/benchmarks/DEVICE.json and the table is written again, with a column for each device
that has been measured. A part that fails or exceeds its time stops no other. minutes=6 leaves out parts for which the time
does not reach, minutes=0 none; only=table writes only the table.
"""

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd
from machine import settings, shares

from wmbench.files import write_text
from wmbench.machine import pick_device
from wmbench.reports.formats import markdown_of

ROOT = Path(__file__).parents[1]
PAGE, FIGURES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks"
BEGIN, END = "<!-- written by benchmarks/everything.py -->", "<!-- end -->"
COLUMNS = ("cpu", "cuda")
ROWS = {
    "planning": {
        "one CEM iteration of DINO-WM, tasks x samples": "{tasks} x {samples}",
        "plain, fp32 [s]": "{seconds_plain:.3g}",
        "ours, fp32": "{speedup_fp32:.2f} times as fast",
        "ours, bf16": "{speedup_bf16:.2f} times as fast",
        "ours, bf16, compiled": "{speedup_bf16_compiled:.2f} times as fast",
        "ours, TF32": "{speedup_tf32:.2f} times as fast",
        "ours, fp32, if the plain way also draws what its mean leads to": "{speedup_fp32_with_decoder:.2f} times as fast",
        "costs of the two ways differ by at most": "{cost_difference_fp32:.1e}",
        "their plans differ by at most": "{plan_difference_fp32:.1e}",
        "tasks whose plan changes, since elites of nearly one cost change places": "{plans_changed_fp32:.0%}",
        "bf16 changes a cost by at most (costs spread by)": "{bf16_cost_change:.4%} ({cost_spread:.2%})",
        "of the machine's fp32 matrix peak": "{fraction_of_peak_fp32:.0%} of {matmul_peak_fp32:.3g} FLOP/s",
        "of its bf16 matrix peak": "{fraction_of_peak_bf16:.0%} of {matmul_peak_bf16:.3g} FLOP/s",
        "50 tasks, one MPC round of 300 x 10 [s]": "{round_seconds:.1f}, peak {round_peak_gb:.1f} GB",
        "an iteration of DINO-WM spends its time on": "{time_goes_to}",
        "LeWM: one CEM iteration, tasks x samples": "{lewm_tasks} x {lewm_samples}",
        "LeWM: ours, fp32": "{lewm_speedup_fp32:.1f} times as fast",
        "LeWM: over a plain way that encodes the start once": "{lewm_speedup_over_start_encoded_once:.1f} times as fast",
        "LeWM: over our older rollout": "{speedup_lewm_previous:.2f} times as fast ({lewm_fastest})",
        "LeWM: of the machine's fp32 matrix peak": "{lewm_fraction_of_peak_fp32:.0%}",
        "LeWM: 50 tasks, one MPC round of 300 x 10 [s]": "{lewm_round_seconds:.2f}",
    },
    "training": {
        "training of DINO-WM's predictor, batch": "{batch_size}",
        "plain [steps/s]": "{steps_per_s_plain:.3g}",
        "from kept features, fp32": "{speedup_fp32:.1f} times as fast",
        "from kept features, bf16": "{speedup_bf16:.1f} times as fast",
        "loss and gradient of the two ways differ by": "{loss_difference:.1e}, {gradient_difference:.1e}",
        "loader's share of a step": "{loader_share:.2%}",
        "peak memory of a step [bytes]": "{peak_memory_bytes:.2e}",
        "a step spends its time on": "{time_goes_to}",
        "training of LeWM end to end": "{lewm_speedup:.2f} times as fast",
        "training of the small LeWM, over our older code": "{speedup_lewm_small:.2f} times as fast ({lewm_small_fastest})",
        "twice the batch, twice the steps": "{twice_the_batch:.2f}, {twice_the_steps:.2f} times the time",
    },
    "rendering": {"rendering [frames/s]": "{bare_frames_per_s:.0f}", "collection, of bare rendering": "{ratio:.2f}"},
}


class Step(NamedTuple):
    """A part of the benchmarks: where its figures go, its command, about how long it takes on a GPU, on two cores [s]."""

    part: str
    script: str
    words: tuple[str, ...]
    cuda_s: int
    cpu_s: int


STEPS = (  # the most telling first
    Step("planning", "planning.py", ("scaling=false",), 150, 300),
    Step("training", "training.py", ("lewm=false",), 90, 240),
    Step("rendering", "rendering.py", (), 40, 120),
    Step("training", "training.py", (), 180, 420),
    Step("planning", "planning.py", (), 240, 420),
)
TESTS_S = 150


def main() -> None:
    given = settings(sys.argv[1:], {"device": "auto", "only": "", "minutes": 0.0})
    failed = [] if given["only"] == "table" else measure(pick_device(given["device"]).type, 60 * given["minutes"])
    write_table()
    print(table())
    if failed:
        raise SystemExit(f"error: {'; '.join(failed)}; what was measured is in {FIGURES}")


def measure(device: str, seconds: float) -> list[str]:
    """Write docs/benchmarks/DEVICE.json part by part; returns what failed.

    Args:
        seconds: that there are; 0 for no limit.
    """
    end, failed = time.monotonic() + (seconds or float("inf")), []
    path = FIGURES / f"{device}.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for step in STEPS:
        name = " ".join((step.script, *step.words))
        needed = step.cuda_s if device == "cuda" else step.cpu_s
        if time.monotonic() + needed > end:
            print(f"\n{name}: left out, as it takes about {needed} s", flush=True)
            continue
        with TemporaryDirectory() as folder:
            output = Path(folder, "figures.json")
            if problem := run([sys.executable, f"benchmarks/{step.script}", *words_of(step, device, output)], end):
                failed.append(f"{name} {problem}")
            if output.exists():
                found = json.loads(output.read_text())
                figures[step.part] = figures.get(step.part, {}) | {key: value for key, value in found.items() if value != []}
                FIGURES.mkdir(exist_ok=True)
                write_text(path, json.dumps(figures, indent=2) + "\n")
                write_table()
    if device == "cuda" and time.monotonic() + TESTS_S < end:
        problem = run([sys.executable, "-m", "pytest", "-q", "-m", "gpu"], end)
        failed += [f"the tests {problem}"] if problem else []
    return failed


def words_of(step: Step, device: str, output: Path) -> list[str]:
    if step.script != "rendering.py":
        return [*step.words, f"device={device}", f"output={output}"]
    return ["--renderer", "warp" if find_spec("mujoco_warp") else "auto", "--output", str(output)]


def run(command: list[str], end: float) -> str | None:
    """What is wrong, None if nothing is."""
    print(f"\n$ {' '.join(command)}", flush=True)
    left = end - time.monotonic()
    try:
        code = subprocess.run(command, cwd=ROOT, timeout=None if left == float("inf") else left).returncode
    except subprocess.TimeoutExpired:
        return "was stopped, as the minutes are over"
    return f"ended with exit status {code}" if code else None


def write_table() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    write_text(PAGE, f"{before}{BEGIN}\n{table()}{END}{rest.partition(END)[2]}")


def table() -> str:
    """The table as Markdown: a row per figure, a column per device."""
    measured = {device: FIGURES / f"{device}.json" for device in COLUMNS}
    known = {device: json.loads(path.read_text()) for device, path in measured.items() if path.exists()}
    titles = [title(device, known.get(device)) for device in COLUMNS]
    lines = [f"| | {' | '.join(titles)} |", "| --- " * (len(COLUMNS) + 1) + "|"]
    lines += [
        f"| {row} | {' | '.join(cell(known.get(device), part, text) for device in COLUMNS)} |"
        for part, texts in ROWS.items()
        for row, text in texts.items()
    ]
    grown = [growth(device, figures.get("planning", {})) for device, figures in known.items()]
    return "\n".join(lines) + "\n" + "".join(grown)


def growth(device: str, figures: dict[str, Any]) -> str:
    """How a plan's time grows with its sizes, and what it takes under a bound on memory."""
    tables = [markdown_of(pd.DataFrame(figures[name]).map(str)) for name in ("scaling", "memory") if figures.get(name)]
    if not tables:
        return ""
    return f"\nA smaller plan on {device} with one size doubled at a time, and memory under a bound:\n\n" + "\n".join(tables)


def title(device: str, figures: dict[str, Any] | None) -> str:
    if figures is None:
        return device
    machine = {"name": device, "threads": "?", "torch": "?"} | figures.get("training", {}) | figures.get("planning", {})
    threads = f"{machine['threads']} threads, " if device == "cpu" else ""
    return f"{machine['name']} ({threads}torch {machine['torch']})"


def cell(figures: dict[str, Any] | None, part: str, text: str) -> str:
    """A figure; - where it is none of this device's."""
    if figures is None:
        return "not yet measured"
    values = {name: shares(value) if isinstance(value, dict) else value for name, value in figures.get(part, {}).items()}
    try:
        return text.format(**values)
    except (KeyError, TypeError):  # not tried there, or null
        return "-"


if __name__ == "__main__":
    main()
