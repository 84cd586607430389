"""The demo's table and report, with what to make of them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from wmbench.evaluation.results import find_summaries, sentence
from wmbench.reports.report import write_report
from wmbench.reports.table import make_table, write_table

ABOUT = (
    "Each model sees 64-pixel frames of a ball in a maze and learns, only from random actions, to predict how its latents "
    "change. To act it searches for actions whose predicted latent is close to the goal's."
)
OF_ROWS = {
    "lewm_small": "lewm_small learns its encoder together with the model.",
    "efficientnet_lite0": "efficientnet_lite0 looks through a network that learned from photographs and stays as it is.",
    "state": "The latent of state is the true state: what could be had from perfect sight.",
}
LIMITS = "They differ in more than their encoders; study.py compares rows that do not."


def write_demo(plans: Path, rows: Sequence[str], num_tasks: int) -> tuple[pd.DataFrame, Path]:
    """Write the table of the plans and a report that opens with the first row; returns both."""
    table = make_table(find_summaries(plans))
    write_table(table, plans)
    shown = {row["row"]: row for row in table.to_dict("records") if row["n_tasks"] == num_tasks}
    intro = [f"{sentence(shown[rows[0]])}, none of which is solved at its start, within 50 env steps (2.5 s)."]
    intro += [" ".join([ABOUT, *(OF_ROWS[row] for row in rows), LIMITS])]
    if shown[rows[0]]["differs_in"]:
        each = "; ".join(f"{name}: {shown[name]['differs_in']}" for name in rows)
        intro += [f"Apart from what they see, the models differ in how they were made. {each}."]
    title = "wmbench demo: planning in the latent space of a world model"
    return table, write_report(table, plans, title, intro, rows[0])
