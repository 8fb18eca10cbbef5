"""`selfloop view`: all runs in the browser, read-only, for this machine alone."""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import RECIPE, Query, Selfloop
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
    assert "cannot be read: file is not a database" in page


def test_a_search_goes_over_all_runs(client: TestClient, query: Query) -> None:
    question, decision = query(Path("runs/r"), "SELECT question, decision FROM attempts WHERE decision != 'dropped'")[0]
    words = question.upper().split(" ", 1)[1]
    assert question in client.get("/", params={"text": words}).text
    assert question in client.get("/", params={"text": words, "decision": decision}).text
    assert question not in client.get("/", params={"text": words, "decision": "failed"}).text
    assert "Nothing was found" in client.get("/", params={"text": "<no such thing>"}).text


def test_a_run_is_its_report_and_says_how_far_it_is(client: TestClient) -> None:
    page = client.get("/run/r").text
    assert "What each round came to" in page and 'data-live="/run/r/now"' in page
    assert client.get("/run/r/now").json() == {"rounds": 1, "text": ""}
    events = Path("runs/r/events.jsonl")
    events.write_text("\n".join(line for line in events.read_text().splitlines() if "Ended" not in line))
    assert client.get("/run/r/now").json()["text"].startswith("At work: round 1, ")


@pytest.mark.parametrize("path", ["/run/nothing", "/run/..%2f..%2fetc", "/run/broken%00", "/else", "/run/r/now/else"])
def test_what_is_not_there(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and "There is no" in answer.text


def test_a_run_that_cannot_be_read_says_so(client: TestClient) -> None:
    answer = client.get("/run/broken")
    assert answer.status_code == 500 and "no run in" in answer.text


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
