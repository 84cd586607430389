"""The report of a study: every number has its source, nothing comes from elsewhere, a partial study says that it is one."""

import csv
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import add_results, add_shifts, make_study

from wmbench.reports.study_episodes import COLUMNS, choose_episodes
from wmbench.reports.study_report import write_study_report

VOID = {"meta", "img", "circle", "line", "rect", "br"}
QUIET = {"style", "script", "title", "code"}
DEFINITIONS = {"0.5", "0.25", "0.1", "0.05", "95", "5", "1", "0"}  # radii, levels, a step, what correlations mean
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Page(html.parser.HTMLParser):
    """What a reader and a browser meet: sourced numbers, other text, links, ids, what is loaded, columns of tables."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.numbers, self.rest, self.links, self.ids = path, [], [], [], []
        self.loaded, self.columns, self.words, self.open = [], [], [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        self.loaded += [values[name] for name in ("src", "srcset", "poster") if name in values]
        self.loaded += [values["href"]] if tag == "link" else []
        if tag == "table":
            self.columns.append(0)
        if tag == "th" and not any(name == "details" for name, _ in self.open):
            self.columns[-1] += 1
        if tag not in VOID:
            self.open.append((tag, values))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if QUIET & set(tags) or "details" in tags:
            return
        self.words.append(data)
        sourced = next((values for _, values in self.open if "data-source" in values), None)
        if sourced:
            self.numbers.append((data, sourced["data-source"], sourced.get("data-scale")))
        else:
            self.rest.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A whole study, whose report is written."""
    folder = make_study(tmp_path_factory.mktemp("studies") / "whole", num_tasks=30, evaluations=("closed",))
    add_results(folder)
    add_shifts(folder)
    write_study_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(study) -> Page:
    return Page(study / "report" / "index.html")


def printed(cell: str, text: str, scale: float) -> bool:
    """Whether a text is a csv cell times the scale, rounded to the text's last digit."""
    number = text.lstrip("<")
    unit = 10.0 ** -len(number.partition(".")[2])
    value = scale * float(cell)
    return value < float(number) if text.startswith("<") else abs(value - float(number)) <= 0.5001 * unit


def test_every_number_of_the_page_is_found_in_its_csv_line(page):
    assert len(page.numbers) > 100
    sheets: dict[str, list[list[str]]] = {}
    for text, source, scale in page.numbers:
        file, line, column = source.split(":")
        if file not in sheets:
            sheets[file] = list(csv.reader((page.path.parent / file).open()))
        cell = sheets[file][int(line) - 1][sheets[file][0].index(column)]
        found = cell == text if scale is None else printed(cell, text, float(scale))
        assert found, f"{text!r} is printed of {source}, which holds {cell!r}"


def test_no_number_of_the_text_is_without_a_source(page):
    text = " ".join(page.rest)
    outside = re.findall(r"(?<![\w.:-])\d+(?:\.\d+)?(?![\w.:-]*\w)", re.sub(r"(arXiv:[\d.]+|Statistics), \d{4}", "", text))
    assert set(outside) <= DEFINITIONS


def test_the_page_loads_nothing_from_elsewhere(page):
    assert page.loaded and all(address.startswith("data:") for address in page.loaded)
    assert not re.search(r"@import|url\(|https?://", page.path.read_text())


def test_every_link_of_the_page_leads_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link[1:] in page.ids if link.startswith("#") else (page.path.parent / link).exists(), link


def test_no_table_of_the_page_has_more_than_eight_columns(page):
    assert 0 < max(page.columns) <= 8


def test_the_answer_names_the_best_row_and_counts_what_can_be_told_from_chance(page):
    assert "Of 4 rows at 5 or more training seeds, dinov2 reached most goals" in page.text
    assert "only 2 of 4 expected differences can be told from chance" in page.text


def test_what_the_study_says_of_itself_is_told_at_the_top_and_not_among_hashes(page):
    assert page.text.count("Made-up outcomes of 60 tasks.") == 1


def test_a_whole_study_has_every_part(page):
    titles = ("Results", "What was expected, and what came out", "How close, and does it stay?", "How far can it go?")
    titles += (
        "What do other pictures cost?",
        "How long does it need?",
        "What does it cost?",
        "Is it the distance, or the dynamics?",
    )
    titles += ("What the diagnostics say", "Which diagnostic goes with success?", "Best and worst episodes")
    titles += ("Where the weights came from", "What was fixed before", "Papers", "Files", "Data")
    assert [title for title in titles if page.words.count(title) < 2] == []  # as a heading and as a link to it
    assert "Planning gap, evaluation closed" in page.text and "could not be made" not in page.text
    assert "Planning gap, evaluation far" not in page.text  # where the simulator has not played


def test_what_other_pictures_cost_is_told_by_setting_with_a_curve_and_its_area(study, page):
    text = (study / "report" / "report.md").read_text()
    tables = re.findall(r"(Clean to shifted|Varied to varied, \w+ (?:of )?range): (\w+), against evaluation closed", text)
    clean, inside, outside = "Clean to shifted", "Varied to varied, in range", "Varied to varied, out of range"
    assert tables == [(clean, "all"), (clean, "lit"), (inside, "all"), (outside, "all"), (outside, "lit")]
    mixed = text.partition(clean + ":")[2].partition("| row | trained on")[0]
    assert mixed.partition(inside + ":")[0].count("| dinov2_cls |") == 0 < mixed.count("| dinov2_cls |")
    assert re.search(r"\| lewm_small \| \d+% \| \d+%, -5 \[-20, \+1\] \| \d+%, -10 \[-20, \+1\] \|", mixed)
    assert "Success of rows trained on varied (all) pictures against the scale of all" in page.text
    assert "| dinov2_cls | all 0.15 | all | clean | 0.2 |" in text and "80% [70, 90]" in text
    scales = pd.read_csv(study / "report" / "scales.csv")
    assert scales.loc[scales["row"] == "lewm_small", "x"].tolist() == [0.0, 0.1, 0.2]


def small_study(folder: Path, num_seeds: int = 5) -> Path:
    """A study without the outcomes of its tasks, whose curves take seconds to draw."""
    make_study(folder, num_seeds, num_tasks=20, evaluations=("closed",))
    (folder / "outcomes.csv").unlink()
    return folder


def test_every_row_that_shares_the_best_ones_letter_is_named(tmp_path):
    folder = small_study(tmp_path / "tied")
    pairs = pd.read_csv(folder / "pairs.csv")
    pairs.loc[pairs["b"] == "lewm_small", "letters_b"] = "ab"
    pairs.to_csv(folder / "pairs.csv", index=False)
    text = Page(write_study_report(folder)).text
    assert re.search(r"cannot be told apart from (lewm_small|dinov2)\b(?!,)", text)


def test_fewer_than_five_training_seeds_make_no_claim(tmp_path):
    folder = small_study(tmp_path / "few", num_seeds=2)
    assert "No claim: with 2 training seeds in some row" in Page(write_study_report(folder)).text


def test_a_partial_study_says_how_far_it_is(tmp_path):
    folder = small_study(tmp_path / "partial")
    cells = pd.read_csv(folder / "cells.csv")
    cells.loc[:4, "state"] = ["missing", "missing", "failed", "missing", "failed"]
    cells.to_csv(folder / "cells.csv", index=False)
    (folder / "contrasts.csv").unlink()
    (folder / "lock.json").unlink()
    page = Page(write_study_report(folder))
    assert f"This study is not finished: {len(cells) - 5} of {len(cells)} cells are done, 2 failed" in page.text
    assert "contrasts.csv has no line yet" in page.text
    assert "There is no lock.json" in page.text


def test_a_part_that_cannot_be_made_says_why(tmp_path):
    folder = make_study(tmp_path / "broken", num_tasks=4, evaluations=("closed",))
    outcomes = pd.read_csv(folder / "outcomes.csv")
    outcomes.assign(geodesic="far").to_csv(folder / "outcomes.csv", index=False)
    page = Page(write_study_report(folder))
    assert "This part could not be made: TypeError" in page.text and "dinov2 reached most goals" in page.text


def test_a_study_without_any_result_has_a_report(tmp_path):
    assert "No answer yet" in Page(write_study_report(tmp_path)).text


def test_a_csv_file_that_lacks_a_column_is_named(tmp_path):
    (tmp_path / "table.csv").write_text("row,success\na,0.5\n")
    with pytest.raises(ValueError, match=r"table\.csv lacks the columns evaluation, .*; python study\.py writes it again"):
        write_study_report(tmp_path)


def test_changes_after_the_first_result_are_told(tmp_path):
    (tmp_path / "lock.json").write_text('{"hash": "ab", "changes": [{"what": "protocol"}]}')
    assert "Something was changed after the first result" in Page(write_study_report(tmp_path)).text


def test_markdown_has_the_tables_of_the_page(study, page):
    text = (study / "report" / "report.md").read_text()
    for line in ("| dinov2 |", "## What was expected, and what came out", "**Of 4 rows at 5 or more training seeds"):
        assert line in text
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert pictures and all((study / "report" / path).exists() for path in pictures)


def test_latex_tables_are_in_the_style_of_booktabs(study):
    for name in ("table.tex", "contrasts.tex"):
        text = (study / "report" / name).read_text()
        assert all(command in text for command in (r"\toprule", r"\midrule", r"\bottomrule", r"dinov2\_cls"))
        assert not re.search(r"(?<!\\)[%&](?![^\n]*\\\\)(?! needs)", text), "a sign that LaTeX reads as its own"


def test_only_papers_of_rows_in_the_study_are_cited(study):
    keys = re.findall(r"@\w+\{(\w+),", (study / "report" / "references.bib").read_text())
    assert {"zhou2024dinowm", "oquab2023dinov2", "tan2019efficientnet", "maes2026lewm"} <= set(keys)
    assert not {"assran2025vjepa2", "simeoni2025dinov3", "caron2021dino"} & set(keys)


def test_best_and_worst_episodes_are_filmed_with_the_cause_of_failure(study, page):
    films = sorted((study / "report" / "episodes").glob("*.mp4"))
    assert films and sum(address.startswith("data:video/mp4") for address in page.loaded) == len(films)
    causes = pd.read_csv(study / "report" / "failures.csv")
    assert causes.loc[causes["row"] == "dinov2_cls", "prediction"].item() == 3


def test_filmed_episodes_are_the_best_and_the_worst_and_of_different_tasks():
    seeds = [{"task": range(4), "geodesic": [1.0, 4.0, 3.0, 2.0], "success": [True, True, True, False]}] * 3
    frames = [pd.DataFrame(seed).assign(row="a", spl=1 - 0.1 * k, final_distance=k) for k, seed in enumerate(seeds)]
    frames[1].loc[1, "success"] = False  # the same task, solved by one run and failed by another
    shown = choose_episodes(["a"], pd.concat(frames).reindex(columns=COLUMNS)).frame
    assert list(zip(shown["task"], shown["success"], shown["final_distance"], strict=True)) == [
        (1, True, 0),
        (2, True, 0),
        (3, False, 2),
        (1, False, 1),
    ]


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_overflow_and_sorts_a_table(study, tmp_path, width):
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    script = """<script>
      const first = () => document.querySelector("tbody tr td").innerText, before = first();
      document.querySelectorAll("thead th button")[0].click();
      const names = [...document.querySelector("tbody").rows].map(row => row.cells[0].innerText);
      const broken = [...document.images].filter(image => !image.naturalWidth).length;
      const wide = document.documentElement.scrollWidth, seen = innerWidth;
      parent.postMessage(JSON.stringify({wide, seen, broken, before, names}), "*");
    </script>"""
    page = (study / "report" / "index.html").read_text()
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{script}</body>"))
    frame = tmp_path / "frame.html"  # since a window is never narrower than 500 pixels
    frame.write_text(
        "<body><script>onmessage = event => document.body.dataset.result = event.data</script>"
        f'<iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>'
    )
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000"]
    done = subprocess.run([browser, *words, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=120)
    result = re.search(r'data-result="([^"]*)"', done.stdout)
    assert result, done.stderr[-500:]
    seen = json.loads(html.unescape(result[1]))
    assert seen["wide"] <= seen["seen"] == width
    assert seen["broken"] == 0
    assert seen["before"] == "simulator" and seen["names"] == sorted(seen["names"], reverse=True)


def test_tasks_in_a_set_of_maps_are_told_apart_by_how_new_their_map_is(tmp_path):
    folder = make_study(tmp_path / "maps", num_seeds=2, num_tasks=12, evaluations=("closed",))
    outcomes = pd.read_csv(folder / "outcomes.csv")
    outcomes["stratum"] = (4 - outcomes["task"]) % 3 * 2  # 4, 2, 0 from near to far
    outcomes.to_csv(folder / "outcomes.csv", index=False)
    text = (write_study_report(folder).parent / "report.md").read_text()
    assert "cells in which a map differs from the nearest one of training" in text and "distance of the goal" not in text
    assert "| row | 0 | 2 | 4 |" in text
    row = outcomes["row"].iloc[0]
    (line,) = re.findall(rf"^\| {row} \| (.*) \|$", text.partition("| row | 0 | 2 | 4 |")[2].partition("\n\n")[0], re.M)
    shown = [int(re.match(r"\d+", cell)[0]) for cell in line.split(" | ")]
    share = outcomes[outcomes["row"] == row].groupby("stratum")["success"].mean()
    assert shown == pytest.approx([100 * share[stratum] for stratum in (0, 2, 4)], abs=0.51) and len(set(shown)) > 1
