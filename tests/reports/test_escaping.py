"""What a result calls itself is shown as text: it closes no tag, opens no link or cell, is no formula and names no file."""

import html.parser
import io
import json
from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import add_results, make_study

from wmbench.envs.mazes import MAPS
from wmbench.evaluation.results import find_summaries
from wmbench.files import file_name
from wmbench.reports.formats import csv_of, in_markdown
from wmbench.reports.page import inline
from wmbench.reports.report import write_report
from wmbench.reports.study_report import write_study_report
from wmbench.reports.table import make_table, to_markdown, write_table

EVIL = """</td><script>alert(1)</script><img src=x onerror=alert(2)>" onload='alert(3)'|[a](javascript:alert(4))"""
PNG = b"\x89PNG\r\n\x1a\n"


class Tags(html.parser.HTMLParser):
    """Every tag of a page, and the names of its attributes."""

    def __init__(self, path: Path):
        super().__init__()
        self.found: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.found |= {tag, *(name for name, _ in attrs)}


def result(folder: Path, **changed: object) -> None:
    """A result as a stranger might publish it, with the text in every fact that is one."""
    folder.mkdir(parents=True)
    pd.DataFrame({"success": [True, False], "steps": [3, 5]}).to_csv(folder / "tasks.csv", index=False)
    texts = (
        "encoder",
        "encoder_name",
        "encoder_source",
        "arm",
        "pixels",
        "renderer",
        "weights_hash",
        "note",
        "data",
        "proprio",
    )
    protocol = {"name": EVIL, "task_seed": EVIL, "max_rounds": None}
    conditions = {
        "maze": list(MAPS["umaze"]),
        "frameskip": 5,
        "tasks": EVIL,
        "protocol": protocol,
        "max_steps": 5,
        "seed": 0,
    }
    conditions |= {"planner": {"_target_": EVIL, "num_samples": EVIL}, "objective": {"alpha": EVIL}, "agent": {}}
    facts = {name: EVIL for name in texts} | {"row": EVIL, "predictor": {"_target_": EVIL}, "recipe": {"max_steps": EVIL}}
    score = {"success": 0.5, "success_low": 0.1, "success_high": 0.9, "n_tasks": 2}
    (folder / "summary.json").write_text(json.dumps(facts | score | {"conditions": conditions, "finished": EVIL} | changed))


def test_a_result_of_markup_is_shown_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wmbench.reports.report.draw_success", lambda *given: None)  # which takes seconds
    result(tmp_path / "one")
    result(tmp_path / "two", row=f"other {EVIL}", note="")
    table = make_table(find_summaries(tmp_path))
    assert len(table) == 2
    write_table(table, tmp_path)
    for page in (write_report(table, tmp_path, EVIL), tmp_path / "table.html"):
        assert not Tags(page).found & {"script", "onerror", "onload", "javascript"}
        assert "&lt;script&gt;" in page.read_text()
    lines = to_markdown(table).splitlines()
    assert len(lines) == 4 and len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "<script" not in "".join(lines) and "](" not in "".join(lines)


def test_a_study_of_markup_is_shown_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for part in ("curves", "episodes"):  # pictures and films, which take seconds
        monkeypatch.setattr(f"wmbench.reports.study_report.{part}", lambda *given: ([], []))
    study = make_study(tmp_path / "evil", num_seeds=2, num_tasks=6, evaluations=("closed",))
    add_results(study)
    for name in ("table.csv", "contrasts.csv", "outcomes.csv", "pairs.csv"):
        frame = pd.read_csv(study / name)
        for column in {"weights", "note", "encoder", "planner", "question", "power", "protocol"} & set(frame):
            frame[column] = EVIL
        frame.replace("lewm_small", EVIL).to_csv(study / name, index=False)
    landscape = study / "runs" / "dinov2_s0" / "landscape.png"
    landscape.write_text("the key of somebody")
    page = write_study_report(study)
    assert page.read_text().count("<script>") == 1  # study.js
    assert not Tags(page).found & {"onerror", "onload"}
    assert "landscape.png is no image/png file" in page.read_text() and "the key of somebody" not in page.read_text()
    text = page.with_name("report.md").read_text()
    assert "<script" not in text and "](javascript" not in text


def test_texts_stay_texts_in_a_spreadsheet():
    texts = ["=cmd|' /C calc'!A0", "+1", "@SUM(A1)", "-cmd", "\t=1", "dinov2", "-0.5", "a = b"]
    read = pd.read_csv(io.StringIO(csv_of(pd.DataFrame({"row": texts, "x": range(8)}))), dtype=str)
    assert list(read["row"]) == ["'=cmd|' /C calc'!A0", "'+1", "'@SUM(A1)", "'-cmd", "'\t=1", *texts[5:]]
    assert list(read["x"]) == list("01234567")


def test_a_text_is_one_line_without_tags_in_markdown():
    assert in_markdown("a\n# b <script> rounds <= 20 [1, 2] ![x](http://y)") == (
        "a # b &lt;script> rounds <= 20 [1, 2] ![x]\\(http://y)"
    )


def test_only_pictures_and_films_go_onto_a_page(tmp_path: Path):
    secret, picture = tmp_path / "secret", tmp_path / "picture.png"
    secret.write_text("a key")
    picture.symlink_to(secret)
    for kind in ("image/png", "video/mp4"):
        with pytest.raises(ValueError, match=rf"picture\.png is no {kind} file, and is not put on a page"):
            inline(picture, kind)
    secret.write_bytes(PNG)
    assert inline(picture, "image/png").startswith("data:image/png;base64,")


@pytest.mark.parametrize("name", ["../../x", "/x", "..", ".", ".hidden", "a/../b", "x\0y\n", "C:\\x"])
def test_a_name_from_a_file_names_one_file_here(name: str):
    assert Path(file_name(name)).name == file_name(name) and not file_name(name).startswith(".")
    assert file_name("umaze_0123_dinov2 s0+a=1.5_bench") == "umaze_0123_dinov2_s0+a=1.5_bench"
