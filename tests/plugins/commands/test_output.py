"""What --out, --export and --pictures may replace (faults.md: "report --out s.yaml, compare --out,
...").

Each command replaces an earlier output of its own, other files with --force, and some files never.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import Said, Selfloop

pytestmark = pytest.mark.slow

Write = Callable[[Mapping[str, str | bytes]], Path]


RECIPE = """\
rounds: 1
backend: scripted
ask: {questions: 3, sources: [topics]}
answer: {samples: 2}
detectors: [agreement]
decide: {belief: 0.1, declined: 0}
"""
ASKED = "questions: 30, sources: [{kind: file, path: asked.jsonl}], scorers: []"
LABELS = {
    "detectors": ["agreement"],
    "centre": [0.0],
    "spread": [1.0],
    "weights": [1.0],
    "intercept": 0.0,
    "fitted": "30 labels",
    "questions": ["1a"],
}
GGUF = b"GGUF" + bytes(100)
DATABASE = b"SQLite format 3\0" + bytes(100)
COMMANDS = {
    "report": (("report", "r"), "--out", "page.html"),
    "compare": (("compare", "r", "r-2"), "--out", "page.html"),
    "beliefs jsonl": (("beliefs", "r"), "--export", "rows.jsonl"),
    "beliefs parquet": (("beliefs", "r"), "--export", "rows.parquet"),
}
NEVER = {
    "a recipe": ("s.yaml", RECIPE),
    "a recipe of another name": ("notes.jsonl", RECIPE),
    "a recipe in JSON": ("s.json", json.dumps({"backend": "scripted"})),
    "a database": ("data.db", DATABASE),
    "a model": ("model.bin", GGUF),
    "weights": ("model.safetensors", b"x"),
}


@pytest.fixture
def runs(write: Write, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, whose pages are quick to draw."""
    monkeypatch.setattr("selfloop_plugins.report.page.draw_all", lambda run: [])
    home = write({"r.yaml": RECIPE})
    for _ in range(2):
        assert selfloop("run", "r.yaml").code == 0
    return home


def refused(said: Said, path: Path, before: bytes, piece: str) -> None:
    assert said.code == 2 and said.out == "" and piece in said.err, said.text
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", COMMANDS)
def test_an_earlier_output_is_replaced_and_another_file_with_force(
    name: str, runs: Path, selfloop: Selfloop
) -> None:
    words, option, file = COMMANDS[name]
    if file.endswith("parquet"):
        pytest.importorskip("pyarrow")
    out = runs / file
    for _ in range(2):
        assert selfloop(*words, option, file).code == 0
    out.write_bytes(b"my own")
    refused(selfloop(*words, option, file), out, b"my own", "replace it with --force")
    said = selfloop(*words, option, file, "--force")
    assert said.code == 0 and out.read_bytes() != b"my own"


def test_an_export_that_was_edited_is_no_earlier_one(runs: Path, selfloop: Selfloop) -> None:
    assert selfloop("beliefs", "--export", "rows.jsonl").code == 0
    with (runs / "rows.jsonl").open("a") as file:
        file.write('{"mine": 1}\n')
    edited = (runs / "rows.jsonl").read_bytes()
    refused(selfloop("beliefs", "--export", "rows.jsonl"), runs / "rows.jsonl", edited, "--force")


def test_the_output_of_another_command_is_not_replaced(runs: Path, selfloop: Selfloop) -> None:
    assert selfloop("report", "r", "--out", "page.html").code == 0
    page = runs / "page.html"
    refused(
        selfloop("compare", "r", "r-2", "--out", "page.html"),
        page,
        page.read_bytes(),
        "no earlier comparison",
    )


@pytest.mark.parametrize("kind", NEVER)
@pytest.mark.parametrize("command", ["report", "compare", "calibrate"])
def test_what_is_never_replaced(
    command: str, kind: str, runs: Path, write: Write, selfloop: Selfloop
) -> None:
    file, content = NEVER[kind]
    write({file: content})
    before = (runs / file).read_bytes()
    words = ("compare", "r", "r-2") if command == "compare" else (command, "r")
    for force in ((), ("--force",)):
        refused(
            selfloop(*words, "--out", file, *force),
            runs / file,
            before,
            "is never replaced. Name another file",
        )


@pytest.mark.parametrize("file", ["run.sqlite", "recipe.yaml", "events.jsonl", "notes.txt"])
def test_a_file_of_a_run_is_never_replaced_nor_through_a_link(
    file: str, runs: Path, selfloop: Selfloop
) -> None:
    target = runs / "runs" / "r" / file
    if not target.exists():
        target.write_text("x")
    (runs / "link.jsonl").symlink_to(target)
    before = target.read_bytes()
    for path in (target, runs / "link.jsonl"):
        refused(
            selfloop("report", "r", "--out", path, "--force"), target, before, "is never replaced"
        )
    refused(
        selfloop("beliefs", "--export", "link.jsonl", "--force"),
        target,
        before,
        "is never replaced",
    )


def test_the_report_of_a_run_is_written_again_also_an_old_one(
    runs: Path, selfloop: Selfloop
) -> None:
    page = runs / "runs" / "r" / "report.html"
    assert selfloop("report", "r").code == 0
    # without a mark
    page.write_text("<!doctype html><head><title>r · selfloop</title>", encoding="utf-8")
    assert selfloop("report", "r").code == 0 and "selfloop report" in page.read_text()
    page.write_text("my own")
    refused(
        selfloop("report", "r", "--force"),
        page,
        b"my own",
        "a file of a run, which is never replaced",
    )


def test_pictures_replace_pictures_alone(
    runs: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfloop_plugins.report.figure_style import new_figure
    from selfloop_plugins.report.figures import FIGURES

    monkeypatch.setattr(
        "selfloop_plugins.report.figures.draw_all", lambda run: [(FIGURES[0], new_figure()[0])]
    )
    for suffix in ("svg", "png"):
        words = ("report", "r", "--pictures", "pictures", "--format", suffix)
        for _ in range(2):
            assert selfloop(*words).code == 0
        picture = runs / "pictures" / f"{FIGURES[0].name}.{suffix}"
        picture.write_bytes(b"my own")
        refused(selfloop(*words), picture, b"my own", "no earlier picture of a report")
        assert selfloop(*words, "--force").code == 0 and picture.read_bytes() != b"my own"


def test_a_calibration_replaces_one_on_labels_alone(
    runs: Path, write: Write, selfloop: Selfloop
) -> None:
    """There are no labels here: a file that may be replaced leads on to that message."""
    write({"labels.json": json.dumps(LABELS), "fit.json": json.dumps(LABELS | {"questions": []})})
    assert "answers with gold answers, " in selfloop("calibrate", "r", "--out", "labels.json").err
    fit = runs / "fit.json"
    refused(
        selfloop("calibrate", "r", "--out", "fit.json"),
        fit,
        fit.read_bytes(),
        "no earlier calibration on labels",
    )


@pytest.mark.parametrize("place", ["pipe", "dangling"])
def test_what_is_no_file_is_refused(place: str, runs: Path, selfloop: Selfloop) -> None:
    import os

    path = runs / "page.html"
    if place == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(runs / "nowhere.html")
    said = selfloop("report", "r", "--out", "page.html", "--force")
    assert said.code == 2 and (
        "a device or a pipe" in said.err or "a link that leads nowhere" in said.err
    )
    assert not (runs / "nowhere.html").exists()


def test_a_folder_with_a_card_of_another_is_no_earlier_data_set(
    runs: Path, selfloop: Selfloop
) -> None:
    mine = runs / "mine"
    mine.mkdir()
    (mine / "train.jsonl").write_text("{}\n")
    (mine / "README.md").write_text("---\ntags:\n- mine\n---\n# selfloop\n- selfloop\n")
    said = selfloop("dataset", "r", "--to", "jsonl", "--out", "mine", "--force")
    assert said.code == 2 and "is no earlier data set" in said.err
    assert (mine / "train.jsonl").read_text() == "{}\n"


# --- state files that older versions left cut off


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "file"),
    [
        ("{kind: combined, min_answers: 20}", "calibration.json"),
        ("{kind: question_probe, min_answers: 20}", "question_probe.json"),
    ],
)
@pytest.mark.parametrize(
    "content", ["", "{", "[[1.0", "[]", "[[NaN, 1], [1, 1], [1, 1], [1, 1], [1, 1]]"]
)
def test_a_damaged_state_file_stops_the_resumed_run(
    detector: str, file: str, content: str, write: Write, selfloop: Selfloop
) -> None:
    pytest.importorskip("scipy")
    recipe = RECIPE.replace("[agreement]", f"[agreement, meaning_probability, {detector}]")
    recipe = recipe.replace("questions: 3, sources: [topics]", ASKED)
    asked = [json.dumps({"question": f"Which town is number {n} on the list?"}) for n in range(60)]
    home = write({"r.yaml": recipe, "asked.jsonl": "\n".join(asked)})
    assert selfloop("run", "r.yaml").code == 0
    run = home / "runs" / "r"
    (run / "recipe.yaml").write_text(
        (run / "recipe.yaml").read_text().replace("rounds: 1", "rounds: 2")
    )
    assert (run / file).is_file()
    whole = (run / file).read_text()
    (run / file).write_text(content)
    said = selfloop("resume", "r")
    assert said.code == 5 and f"{file} is damaged, and without it the detector" in said.err
    (run / file).write_text(whole)
    assert selfloop("resume", "r").code == 0


@pytest.mark.parametrize(
    ("stored", "new"), [("0123abcd", False), ("0123abcd\n", False), ("0123", True), ("", True)]
)
def test_a_tracker_whose_id_was_cut_off_gets_a_new_run(
    stored: str, new: bool, tmp_path: Path
) -> None:
    from selfloop_plugins.observers.trackers.tracker import tracker_id

    (tmp_path / "wandb.id").write_text(stored)
    assert tracker_id(tmp_path / "wandb.id", "[0-9a-f]{8}", lambda: "ffffffff") == (
        ("ffffffff", True) if new else ("0123abcd", False)
    )
