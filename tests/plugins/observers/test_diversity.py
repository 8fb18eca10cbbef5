"""The observer `diversity`: what it measures, and when it says that asking collapses."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from selfloop_plugins.observers import diversity
from selfloop_plugins.observers.diversity import Diversity

from selfloop import Attempt, Question, Round, Score
from selfloop.events import RoundEnded, RunStarted
from selfloop.records import ModelInfo
from selfloop.storage.store import Store

NAMES = ["Ada", "Bel", "Cid", "Dora", "Eva", "Finn", "Gil", "Hal", "Ida", "Jon", "Kay", "Lea"]
FORMS = [
    "Who painted {}?",
    "When was {} born?",
    "Where did {} live?",
    "Which river flows by {}?",
    "How old is {}?",
]


def ended(number: int, texts: list[str], dropped: int = 0) -> Round:
    asked = [Attempt(Question(text, "test"), decision="undecided") for text in texts]
    left = [
        Attempt(Question(f"left {i}?", "test"), decision="dropped", reason="x: y")
        for i in range(dropped)
    ]
    return Round(number, (*asked, *left))


def varied(of: str) -> list[str]:
    return [FORMS[i % len(FORMS)].format(f"{of} {name}") for i, name in enumerate(NAMES)]


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "diversity.jsonl").read_text().splitlines()]


def test_a_line_for_each_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    observer = Diversity(folder=tmp_path)
    observer.on_event(RoundEnded(ended(1, varied("Anna"), dropped=3)))
    observer.on_event(RoundEnded(ended(2, varied("Bruno"))))
    first, second = written(tmp_path)
    keys = ("round", "asked", "dropped", "new", "repeats", "entities", "forms")
    assert {key: first[key] for key in keys} == {
        "round": 1, "asked": 12, "dropped": 3, "new": 12, "repeats": 0.0, "entities": 12,
        "forms": 5,
    }  # fmt: skip
    assert second["round"] == 2 and second["new"] == 12 and second["new_entities"] == 12
    assert 0 < first["lexical_spread"] < 1 and first["embedding_spread"] is None
    assert first["top_form"] == 0.25
    assert capsys.readouterr() == ("", "")


def test_collapse_is_said_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = Diversity(folder=tmp_path)
    observer.on_event(RoundEnded(ended(1, varied("Anna"))))
    observer.on_event(
        RoundEnded(ended(2, [text.replace("?", " then?") for text in varied("Anna")]))
    )
    err = capsys.readouterr().err.splitlines()
    assert err == [
        "asking collapses: round 2: 0 new questions, the first round had 12. "
        "Add sources or topics, raise ask.max_turns, or stop here.",
        "asking collapses: round 2: 100% of the questions repeat earlier ones. "
        "Raise the minimum of the scorer novelty, or add sources.",
    ]
    assert written(tmp_path)[1]["repeats"] == 1.0


def test_one_form_over_half_is_a_collapse_in_the_first_round_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Diversity(folder=tmp_path).on_event(
        RoundEnded(ended(1, [f"Who painted {name}?" for name in NAMES]))
    )
    assert "100% of the questions have one form" in capsys.readouterr().err
    Diversity(folder=tmp_path / "b").on_event(
        RoundEnded(ended(1, [f"Who painted {name}?" for name in NAMES[:9]]))
    )
    assert capsys.readouterr().err == "", "of a few questions a share says nothing"


def test_variants_are_no_repeats(tmp_path: Path) -> None:
    observer, texts = Diversity(folder=tmp_path), varied("Anna")
    observer.on_event(RoundEnded(ended(1, texts)))
    again = [
        Question(f"{text[:-1]} then?", "test", variant="reworded", variant_of=text)
        for text in texts
    ]
    observer.on_event(RoundEnded(Round(2, tuple(Attempt(q, decision="undecided") for q in again))))
    assert written(tmp_path)[1]["repeats"] == 0.0


def test_embedding_spread_is_the_mean_novelty_by_embeddings(tmp_path: Path) -> None:
    scores = [
        (Score("novelty", v, "like 'x' (cosine 0.50)"), Score("novelty-2", 0.9, "like 'x'"))
        for v in (0.2, 0.4)
    ]
    attempts = tuple(
        Attempt(Question(f"Q{i}?", "t"), s, decision="belief") for i, s in enumerate(scores)
    )
    Diversity(folder=tmp_path).on_event(RoundEnded(Round(1, attempts)))
    assert written(tmp_path)[0]["embedding_spread"] == 0.3


@pytest.mark.parametrize("texts", [[], ["?"], ["", "\udc80", "长江有多长?"], ["same?"] * 30])
def test_odd_rounds(texts: list[str], tmp_path: Path) -> None:
    Diversity(folder=tmp_path).on_event(RoundEnded(ended(1, texts)))
    assert written(tmp_path)[0]["asked"] == len(texts)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run of two stored rounds; the second has half a line, as a killed process leaves it."""
    store = Store(tmp_path, write=True)
    observer = Diversity(folder=tmp_path)
    for number, of in enumerate(("Anna", "Bruno"), 1):
        store.save_round(ended(number, varied(of)))
        observer.on_event(RoundEnded(ended(number, varied(of))))
    store.close()
    file = tmp_path / "diversity.jsonl"
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(whole[0] + whole[1][:20])
    (tmp_path / "whole").write_bytes(b"".join(whole))
    return tmp_path


def test_on_resume_lines_stay_and_none_is_doubled(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        observer = Diversity(folder=stopped)
        observer.on_event(RunStarted("r", str(stopped), 3, 2, ModelInfo("m")))
    lines = (stopped / "diversity.jsonl").read_text().splitlines()
    first, second = (stopped / "whole").read_text().splitlines()
    assert lines == [first, lines[1], second], "the half line stays; the whole one follows"
    observer.on_event(RoundEnded(ended(3, varied("Anna"))))
    assert json.loads((stopped / "diversity.jsonl").read_text().splitlines()[-1])["repeats"] == 1.0
    assert "round 3: 0 new questions, the first round had 12" in capsys.readouterr().err


def test_what_is_said_goes_above_the_live_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console
    from rich.live import Live

    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    console = Console(force_terminal=True, width=60, file=terminal)
    with Live("picture", console=console, auto_refresh=False) as live:
        live.refresh()
        diversity._warn("asking collapses: a reason")
    shown = terminal.getvalue()
    assert "asking collapses: a reason\n" in shown
    assert shown.rindex("picture") > shown.index("asking collapses"), (
        "the picture is drawn again below"
    )


def test_what_is_said_is_safe_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    diversity._warn("a\x1b[31m\nb")
    assert capsys.readouterr().err == "a\N{REPLACEMENT CHARACTER}[31m b\n"
