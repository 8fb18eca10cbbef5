"""`selfloop view`: all runs in the browser, read-only, for this machine alone."""

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="pip install 'selfloop[view]'")
pytest.importorskip("httpx", reason="pip install 'selfloop[dev]'")

from conftest import RECIPE, Query, Selfloop
from selfloop_plugins.report.run_summary import read_summary
from selfloop_plugins.view.library import Library
from selfloop_plugins.view.server import application
from starlette.testclient import TestClient

Write = Callable[[Mapping[str, str | bytes]], Path]


@pytest.fixture
def client(write: Write, selfloop: Selfloop) -> TestClient:
    """A browser's view of a folder with a run, and one that is broken."""
    folder = write({"r.yaml": RECIPE, "runs/broken/run.sqlite": b"not a database, not at all"})
    assert selfloop("run", "r.yaml").code == 0
    return TestClient(application(Library(folder / "runs")), base_url="http://127.0.0.1")


def test_all_runs_are_listed(client: TestClient) -> None:
    page = client.get("/").text
    assert 'href="/run/r"' in page and "scripted" in page and "done" in page
    assert "is damaged: file is not a database" in page


def test_a_search_goes_over_all_runs(client: TestClient, query: Query) -> None:
    question, decision = query(
        Path("runs/r"), "SELECT question, decision FROM attempts WHERE decision != 'dropped'"
    )[0]
    words = question.upper().split(" ", 1)[1]
    assert question in client.get("/", params={"text": words}).text
    assert question in client.get("/", params={"text": words, "decision": decision}).text
    assert question not in client.get("/", params={"text": words, "decision": "failed"}).text
    assert "Nothing was found" in client.get("/", params={"text": "<no such thing>"}).text


def test_a_run_is_its_report_and_says_how_far_it_is(client: TestClient) -> None:
    page = client.get("/run/r").text
    assert "Decisions by round" in page and 'data-live="/run/r/now"' in page
    assert client.get("/run/r/now").json() == {"rounds": 1, "text": ""}
    events = Path("runs/r/events.jsonl")
    events.write_text(
        "\n".join(line for line in events.read_text().splitlines() if "Ended" not in line)
    )
    assert client.get("/run/r/now").json()["text"].startswith("At work: round 1, ")


def test_a_search_knows_large_letters_of_other_scripts(write: Write, selfloop: Selfloop) -> None:
    folder = one_question(write, selfloop, "Où est la grande École de Paris?")
    found = Library(folder / "runs").search("GRANDE ÉCOLE", "")
    assert {hit.question for hit in found} == {"Où est la grande École de Paris?"}


def test_a_search_says_when_it_shows_no_more(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "No more than" not in client.get("/", params={"text": "?"}).text
    for module in ("library", "server"):
        monkeypatch.setattr(f"selfloop_plugins.view.{module}.HITS", 1)
    assert "No more than 1 are shown" in client.get("/", params={"text": "?"}).text


def test_the_list_counts_as_the_report_does(write: Write, selfloop: Selfloop, query: Query) -> None:
    """Each question once, as it was decided last, however often it was asked."""
    folder = one_question(write, selfloop, "Where is it?")
    assert query(folder / "runs/r", "SELECT count(*) FROM attempts")[0][0] > 1
    (listed,) = Library(folder / "runs").listed()
    asked = read_summary(folder / "runs/r").last_attempts
    assert listed.counts and listed.counts.total() == len(asked) == 1


def one_question(write: Write, selfloop: Selfloop, text: str) -> Path:
    """Return a folder with a run of two rounds, whose model says nothing but one question."""
    recipe = "rounds: 2\nbackend: {kind: scripted, script: s.json}\nanswer: {samples: 2}\n"
    ask_context = "ask: {questions: 1, scorers: [], sources: [blank_slate]}\n"
    folder = write({"s.json": f'{{".": ["{text}"]}}', "r.yaml": recipe + ask_context})
    assert selfloop("run", "r.yaml").code == 0
    return folder


def test_a_run_without_events_is_done_if_its_rounds_are_there(
    client: TestClient, selfloop: Selfloop
) -> None:
    assert selfloop("rescore", "r").code == 0
    assert not Path("runs/r-rescored/events.jsonl").exists()
    assert client.get("/run/r-rescored/now").json() == {"rounds": 1, "text": ""}


def test_one_odd_folder_does_not_hide_the_others(client: TestClient) -> None:
    shutil.copytree("runs/r", os.fsdecode(b"runs/caf\xe9"))
    assert 'href="/run/r"' in client.get("/").text


@pytest.mark.parametrize(
    "path", ["/run/nothing", "/run/..%2f..%2fetc", "/run/broken%00", "/else", "/run/r/now/else"]
)
def test_what_is_not_there(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and "There is no" in answer.text


def test_a_run_that_cannot_be_read_says_so(client: TestClient) -> None:
    answer = client.get("/run/broken")
    assert answer.status_code == 500 and "no run in" in answer.text
    now = client.get("/run/broken/now")
    assert now.status_code == 500 and "is damaged" in now.text


def test_it_is_for_this_machine_and_reads_only(client: TestClient) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.post("/run/r").status_code == 405
    for name in ("X-Frame-Options", "X-Content-Type-Options", "Content-Security-Policy"):
        assert name in client.get("/").headers


def test_mistakes_are_said(work: Path, selfloop: Selfloop) -> None:
    none = selfloop("view", "nowhere")
    assert none.code == 5 and "no folder nowhere" in none.err
    (work / "runs").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = selfloop("view", "--port", taken.getsockname()[1])
    assert said.code == 2 and "0 is any free one" in said.err
