"""`selfloop report` and `selfloop compare`, and the observer that keeps the report up to date."""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from conftest import RECIPE, Query, Selfloop
from selfloop_plugins._shared.gate_report import GateReport
from selfloop_plugins._shared.round_figures import round_figures
from selfloop_plugins.report.figures import FIGURES, draw_all, wilson_interval
from selfloop_plugins.report.questions import json_for_script, visible
from selfloop_plugins.report.run_summary import TuneSummary, read_summary
from selfloop_plugins.report.topics import topic_names

from selfloop import Question

Write = Callable[[Mapping[str, str | bytes]], Path]

ASKED = """\
{"question": "What is the capital of Egypt?", "answers": ["Cairo"]}
{"question": "Which planet is the largest one?", "answers": ["Jupiter"]}
{"question": "How many legs does a spider have?", "answers": ["eight"]}
"""
GOLD = """\
rounds: 1
backend: scripted
ask: {questions: 3, scorers: [], sources: [{kind: file, path: gold.jsonl}]}
answer: {samples: 4}
"""
TWO = RECIPE.replace("rounds: 1", "rounds: 2").replace("questions: 2", "questions: 4")


def data(page: str) -> list[dict[str, Any]]:
    """Return what the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    rows: list[dict[str, Any]] = json.loads(found[1])
    return rows


@pytest.mark.extra("report")
@pytest.mark.slow
def test_a_run_leaves_a_report(
    reports: None, write: Write, selfloop: Selfloop, query: Query
) -> None:
    folder = write({"r.yaml": TWO})
    assert selfloop("run", "r.yaml").code == 0
    page = (folder / "runs/r/report.html").read_text("utf-8")
    (asked,) = query(folder / "runs/r", "SELECT count(DISTINCT question) FROM attempts")
    assert len(data(page)) == asked[0]
    assert "2 of 2" in page and "Decisions by round" in page and page.count("<svg") >= 4


@pytest.mark.extra("report")
@pytest.mark.slow
def test_the_page_asks_nothing_of_a_network(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": TWO})
    selfloop("run", "r.yaml")
    said = selfloop("report", "r", "--out", "page.html")
    assert (said.code, said.out.strip()) == (0, "page.html")
    page = Path("page.html").read_text("utf-8")
    outside = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    # names of XML, never fetched
    assert all(one.startswith("http://www.w3.org/") for one in outside), outside
    assert not re.search(
        r"<(link[^>]+href=\"(?!data:,)|script[^>]+src|img|iframe|object|embed)", page
    )
    assert "default-src 'none'" in unescape(page)


@pytest.mark.extra("report")
@pytest.mark.slow
def test_pictures_as_files(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": TWO})
    selfloop("run", "r.yaml")
    said = selfloop("report", "r", "--pictures", "pics", "--format", "png")
    files = sorted(Path("pics").iterdir())
    assert said.code == 0 and {file.stem for file in files} >= {
        "rounds",
        "growth",
        "confidence",
        "topics",
    }
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert selfloop("report", "r", "--pictures", "r.yaml").code != 0


@pytest.mark.slow
@pytest.mark.extra("report")
def test_rounds_are_labelled_where_there_is_room(write: Write, selfloop: Selfloop) -> None:
    """One by one if they are few; a hundred make neither a long figure nor overlapping labels."""
    folder = write({"r.yaml": TWO})
    selfloop("run", "r.yaml")
    summary = read_summary(folder / "runs/r")
    many = replace(summary, rounds=[replace(summary.rounds[0], number=k) for k in range(1, 101)])
    few, hundred = ({one.name: figure for one, figure in draw_all(run)} for run in (summary, many))
    assert (
        list(few["growth"].axes[0].get_xticks())
        == list(few["rounds"].axes[0].get_yticks())
        == [1, 2]
    )
    assert hundred["rounds"].get_size_inches()[1] < 10
    for labels in (hundred["growth"].axes[0].get_xticks(), hundred["rounds"].axes[0].get_yticks()):
        assert 4 < len(labels) < 16 and all(float(one).is_integer() for one in labels)


@pytest.mark.slow
@pytest.mark.extra("report")
def test_gold_answers_bring_what_is_true(write: Write, selfloop: Selfloop) -> None:
    folder = write({"gold.jsonl": ASKED, "r.yaml": GOLD})
    assert selfloop("run", "r.yaml").code == 0
    summary = read_summary(folder / "runs/r")
    assert summary.measured and summary.measured.questions == 3
    assert {"reliability", "risk"} <= {picture.name for picture, _ in draw_all(summary)}
    selfloop("report", "r")
    page = (folder / "runs/r/report.html").read_text("utf-8")
    assert "3 questions have gold answers" in page and "always decline" in page


@pytest.mark.extra("report")
@pytest.mark.slow
def test_a_tune_is_drawn_from_what_it_left(write: Write, selfloop: Selfloop) -> None:
    folder = write({"r.yaml": TWO})
    selfloop("run", "r.yaml")
    run = folder / "runs/r"
    base = {"kept": 1.0, "declined": 0.0, "refused": 0.0, "perplexity": 10.0}
    tuned = {"kept": 0.9, "declined": 0.6, "refused": 0.1, "perplexity": 10.1}
    about = {
        "taught": 40, "held out": 10, "epochs": [{"epoch": 1, "loss": 1.0, "kl": 0.0, "held": 0.9}],
        "gate": {
            "base": base | {"gold": None}, "tuned": tuned | {"gold": None},
            "refusal": "<b>too little</b>",
        },
    }  # fmt: skip
    (run / "adapters/round-002").mkdir(parents=True)
    (run / "adapters/round-002/gate.json").write_text(json.dumps(about))
    with (run / "events.jsonl").open("a") as file:
        for done, loss in ((1, 2.0), (2, 1.5), (2, 1.25)):
            event = {
                "event": "TrainingStep",
                "time": "2026-11-27T00:00:00+00:00",
                "round": 2,
                "done": done,
                "of": 2,
            }
            file.write(json.dumps(event | {"loss": loss}) + "\n")
        file.write('{"event": "TrainingStep", "time": "2026-1')  # what a kill leaves
    (tune,) = read_summary(run).tunes
    report = GateReport(base, tuned, "<b>too little</b>", 40, 10, (0.9,))
    assert tune == TuneSummary(2, ((1, 2.0), (2, 1.25)), report)
    selfloop("report", "r")
    page = (run / "report.html").read_text("utf-8")
    assert "Effect of each tune" in page and "+1.0 %" in page
    assert "Signs of collapse" in page
    (_, second) = round_figures(run, read_summary(run).rounds)
    assert (second.kept, second.declined, second.agreement) == (0.9, 0.6, None)
    cells = [f"{second.label_entropy:.2f}", "", "0.90", "0.60"]
    row = "".join(f'<td class="number">{cell}</td>' for cell in ["2", *cells])
    assert f"<tr>{row}</tr>" in page
    assert "refused: &lt;b&gt;too little" in page


@pytest.mark.extra("report")
def test_what_cannot_be_shown_is_said(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE})
    none = selfloop("report", "nowhere")
    assert none.code == 5 and "no run in" in none.err and "Give the folder" in none.err
    selfloop("run", "r.yaml")
    lost = selfloop("report", "r", "--out", "r.yaml/page.html")
    assert lost.code == 5 and "Choose another place with --out" in lost.err
    alone = selfloop("compare", "r")
    assert alone.code == 2 and "two runs or more" in alone.err


@pytest.mark.extra("report")
def test_a_folder_whose_name_is_no_text_has_a_report(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE})
    selfloop("run", "r.yaml")
    odd = Path(os.fsdecode(b"caf\xe9"))
    shutil.copytree("runs/r", odd)
    assert selfloop("report", odd).code == 0
    assert "caf?" in (odd / "report.html").read_text("utf-8")


@pytest.mark.extra("report")
@pytest.mark.slow
def test_two_runs_side_by_side(write: Write, selfloop: Selfloop) -> None:
    write(
        {
            "gold.jsonl": ASKED,
            "a.yaml": GOLD + "decide: {belief: 0.05, declined: 0.01}\n",
            "b.yaml": GOLD + "decide: {belief: 1.0, declined: 0.99}\n",
        }
    )
    for name in "ab":
        assert selfloop("run", f"{name}.yaml").code == 0
    said = selfloop("compare", "a", "b", "--out", "c.html")
    assert said.code == 0 and "3 questions were asked in more than one run" in said.out
    figures = json.loads(selfloop("compare", "a", "b", "--json").out)
    assert figures["figures"]["questions"] == ["3", "3"] and len(figures["shared"]) == 3
    held = int(figures["figures"]["belief"][0].split()[0])
    # b believes nothing
    assert held > 0 and sum(one["differs"] for one in figures["shared"]) == held
    page = Path("c.html").read_text("utf-8")
    assert "2 runs side by side" in page and page.count("Decisions by round") >= 1
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_runs_are_told_apart_by_the_end_of_a_long_path(write: Write, selfloop: Selfloop) -> None:
    """And a figure that there is not, as the AUROC where nothing is right, has no row."""
    write(
        {
            "gold.jsonl": ASKED.replace("eight", "xyzzy")
            .replace("Jupiter", "xyzzy")
            .replace("Cairo", "xyzzy"),
            "a.yaml": GOLD,
        }
    )
    deep = "one/folder/in/another/that/is/rather/deep/down"
    selfloop("run", "a.yaml", "--runs", deep)
    selfloop("run", "a.yaml", "--runs", deep, "--set", "decide={belief: 0.05, declined: 0.01}")
    said = selfloop("compare", f"{deep}/a", f"{deep}/a-2").out
    assert f"  {deep}/a: " in said and f"  {deep}/a-2: " in said
    assert "wrong by gold" in said and "AUROC" not in said and "nan" not in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\x1b[31mb\x00", "a␛[31mb␀"),
        ("\u202eevil", "[U+202E]evil"),
        ("\u0645\u0631\u062d\u0628\u0627", "\u0645\u0631\u062d\u0628\u0627"),
        ("x" * 1003, "x" * 1000 + "… (3 more characters)"),
        ("\ud800", "?"),
    ],
)
def test_what_is_hidden_in_a_text_is_seen(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_nothing_ends_the_data(write: Write, selfloop: Selfloop) -> None:
    text = "</script><script>alert(1)</script> \u2028 <!--"
    made = json_for_script([text])
    assert "<" not in made and json.loads(made) == [text]


@pytest.mark.extra("stats")
def test_topics_are_those_of_the_source_or_of_the_words() -> None:
    rivers = [
        Question(f"Which river flows through {city}?", "blank")
        for city in ("Rome", "Paris", "Cairo", "Oslo")
    ]
    kings = [
        Question(f"Who was the king of {land}?", "blank")
        for land in ("Spain", "France", "Egypt", "Norway")
    ]
    names = topic_names([*rivers, *kings, Question("Who?", "topics", topic="painters")])
    assert names[-1] == "painters"
    assert len(set(names[:4])) == len(set(names[4:8])) == 1 and names[0] != names[4]
    assert "river" in names[0] and "king" in names[4]
    assert topic_names([Question("?", "blank")]) == ["other"]


def test_an_interval_of_a_share() -> None:
    low, high = wilson_interval(0.5, 10)
    assert low == pytest.approx(0.2366, abs=1e-3) and high == pytest.approx(0.7634, abs=1e-3)


def test_every_picture_has_its_own_name() -> None:
    assert len({picture.name for picture in FIGURES}) == len(FIGURES)


@pytest.mark.slow
@pytest.mark.extra("report")
def test_a_run_says_where_its_report_is(reports: None, write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE})
    assert selfloop("run", "r.yaml").out.splitlines()[-1] == "Page: runs/r/report.html"
