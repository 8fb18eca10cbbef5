"""`selfloop dataset`: each form of row, each kind of file, the card, and what is refused."""

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Selfloop
from ruamel.yaml import YAML
from selfloop_plugins._shared import cards
from selfloop_plugins.export import dataset as dataset_out
from selfloop_plugins.export.dataset import rows

from selfloop.errors import StoreError
from selfloop.records import Attempt, Completion, Decision, Outcome, Question, Round, Verdict
from selfloop.storage.store import Store

Write = Callable[[Mapping[str, str]], Path]
HOSTILE = "Who wrote ```it``` |\n---\n# <script>alert(1)</script>\x1b[2J \u202e{x}\udc80?"


def attempt(
    text: str, answer: str, decision: Decision, confidence: float | None, **more: Any
) -> Attempt:
    draft = Completion(answer, adapter="abc")
    samples = (Completion(f" {answer} ", sample=0), Completion("else", sample=1))
    verdicts = (Verdict("agreement", 0.5), Verdict("pmi", confidence))
    return Attempt(
        Question(text, "topics", topic="rivers"),
        draft=draft,
        samples=samples,
        verdicts=verdicts,
        decision=decision,
        confidence=confidence,
        **more,
    )


def lowered(text: str, answer: str) -> Outcome:
    return Outcome(
        Question(text, "topics", topic="rivers"), "undecided", answer, 0.4, 1, "abc", "contradicted"
    )


ROUNDS = (
    Round(1, (
        attempt("Held?", "yes", "belief", 0.9),
        attempt("Declined?", "made up", "declined", 0.1),
        attempt("Said so?", "I don't know", "declined", 0.0),
        attempt("Half?", "perhaps", "undecided", 0.5),
        attempt("Lowered?", "once", "belief", 0.8),
        Attempt(Question("Dropped?", "topics"), decision="dropped", reason="novelty: seen"),
        Attempt(Question("Failed?", "topics"), decision="failed", reason="backend: gone"),
    )),
    Round(2, (
        attempt("Again?", "other", "undecided", 0.4, lowers=lowered("Lowered?", "once")),
        Attempt(Question("Held?", "topics"), decision="dropped", reason="novelty: seen"),
        attempt(HOSTILE, f"Told: {HOSTILE}", "belief", 0.7),
    )),
)  # fmt: skip


@pytest.fixture
def run(work: Path) -> Path:
    """A run of two rounds, in which one belief is lowered later, and one question is hostile."""
    store = Store(work / "runs" / "first", write=True)
    store.save_file("recipe.yaml", "# ``` is no end\nbackend: scripted\ndecide: {belief: 0.65}\n")
    store.set_meta(
        model={"name": "a|`model`", "file": "m.gguf", "sha256": "ab" * 32, "parameters": 1_000_000}
    )
    for ended in ROUNDS:
        store.save_round(ended)
    store.close()
    return work / "runs" / "first"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_row_a_question_as_the_run_left_it(run: Path, selfloop: Selfloop, work: Path) -> None:
    said = selfloop("dataset", "first", "--to", "jsonl")
    assert (said.code, said.out) == (0, "Written, 7 rows and a card: first-qa\n"), said.err
    found = {row["question"]: row for row in read(work / "first-qa" / "train.jsonl")}
    assert {text: row["decision"] for text, row in found.items()} == {
        "Held?": "belief",
        "Declined?": "declined",
        "Said so?": "declined",
        "Half?": "undecided",
        "Lowered?": "undecided",
        "Again?": "undecided",
        HOSTILE.replace("\udc80", "?"): "belief",
    }
    assert found["Declined?"] == {
        "question": "Declined?",
        "answer": "I don't know",
        "drafted": "made up",
        "decision": "declined",
        "confidence": 0.1,
        "round": 1,
        "source": "topics",
        "topic": "rivers",
        "samples": ["made up", "else"],
        "verdicts": {"agreement": 0.5, "pmi": 0.1},
        "adapter": "abc",
        "model": "a|`model`",
    }
    assert (found["Lowered?"]["confidence"], found["Lowered?"]["answer"]) == (0.4, "once")


def test_supervised_rows(run: Path) -> None:
    found = {row["prompt"]: row["completion"] for row in rows(run, "sft")}
    assert found.pop(HOSTILE.replace("\udc80", "?"))
    assert found == {"Held?": "yes", "Declined?": "I don't know", "Said so?": "I don't know"}
    assert rows(run, "sft", only=("belief",), chat=True)[0] == {
        "prompt": [{"role": "user", "content": "Held?"}],
        "completion": [{"role": "assistant", "content": "yes"}],
    }


def test_pairs(run: Path) -> None:
    """A question that the model itself declined has no pair: both sides of it would be the same."""
    found = [tuple(row.values()) for row in rows(run, "preference") if row["prompt"].isascii()]
    assert found == [("Held?", "yes", "I don't know"), ("Declined?", "I don't know", "made up")]
    assert list(rows(run, "preference", chat=True)[1]) == ["prompt", "chosen", "rejected"]
    assert rows(run, "preference", chat=True)[1]["rejected"] == [
        {"role": "assistant", "content": "made up"}
    ]


def test_only(run: Path, selfloop: Selfloop) -> None:
    assert [row["question"] for row in rows(run, only=("dropped", "failed"))] == [
        "Dropped?",
        "Failed?",
    ]
    said = selfloop("dataset", "first", "--to", "jsonl", "--only", "belief, failed", "--json")
    assert json.loads(said.out) == {"path": "first-qa", "to": "jsonl", "form": "qa", "rows": 3}


@pytest.mark.parametrize("form", ["qa", "sft", "preference"])
def test_parquet(form: str, run: Path, selfloop: Selfloop, work: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'selfloop[parquet]'")
    said = selfloop("dataset", "first", "--to", "parquet", "--form", form, "--out", "out")
    assert said.code == 0, said.err
    assert parquet.read_table(work / "out" / "train.parquet").to_pylist() == rows(run, form)  # type: ignore[arg-type]


def test_parquet_of_what_nobody_judged(run: Path, selfloop: Selfloop, work: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'selfloop[parquet]'")
    assert (
        selfloop("dataset", "first", "--to", "parquet", "--only", "dropped", "--out", "out").code
        == 0
    )
    (row,) = parquet.read_table(work / "out" / "train.parquet").to_pylist()
    assert (row["question"], row["verdicts"], row["samples"]) == ("Dropped?", None, [])


def test_the_library_datasets_is_given_the_rows(
    run: Path, selfloop: Selfloop, work: Path, monkeypatch
) -> None:
    """Played by a module of that name: the library is large."""
    given: list[Any] = []

    def from_list(found: Any) -> Any:
        given.append(found)
        return SimpleNamespace(
            save_to_disk=lambda part: (Path(part) / "dataset_info.json").write_text("{}")
        )

    module = SimpleNamespace(
        Dataset=SimpleNamespace(from_list=from_list), disable_progress_bars=lambda: None
    )
    monkeypatch.setitem(sys.modules, "datasets", module)
    assert selfloop("dataset", "first", "--to", "hf", "--out", "out").code == 0
    assert given == [rows(run)]
    assert {path.name for path in (work / "out").iterdir()} == {"README.md", "dataset_info.json"}
    card = (work / "out" / "README.md").read_text(encoding="utf-8")
    assert 'datasets.load_from_disk("THIS FOLDER")' in card and "configs" not in card


def test_the_library_datasets_reads_it(run: Path, selfloop: Selfloop, work: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="pip install 'selfloop[datasets]'")
    assert selfloop("dataset", "first", "--to", "hf", "--out", "out").code == 0
    assert list(datasets.load_from_disk(str(work / "out"))) == rows(run)
    assert selfloop("dataset", "first", "--to", "jsonl", "--out", "lines").code == 0
    assert list(datasets.load_dataset(str(work / "lines"), split="train")) == rows(run)


# --- the card


def test_the_card_says_what_it_is_and_hostile_text_stays_text(
    run: Path, selfloop: Selfloop, work: Path
) -> None:
    assert selfloop("dataset", "first", "--to", "jsonl", "--form", "sft").code == 0
    text = (work / "first-sft" / "README.md").read_text(encoding="utf-8")
    _, top, body = text.split("---\n", 2)
    about = YAML(typ="safe").load(top)
    assert about["configs"][0]["data_files"] == [{"split": "train", "path": "train.jsonl"}]
    assert (about["pretty_name"], about["size_categories"]) == ("first-sft", ["n<1K"])
    assert "Model: `` a\\|`model` `` (sha256 `" + "ab" * 32 in body
    assert (
        "4 rows, one a question" in body and "| `completion` | " in body and "`samples`" not in body
    )
    assert "| undecided | 3 |" in body and "| dropped | 1 |" in body
    assert "confidence of at least 0.65 is a belief, one of at most 0.3 was declined" in body
    assert "````yaml\n# ``` is no end\n" in body, "the recipe cannot end its block"
    assert "Nobody checked the answers" in body
    assert "Whoever publishes this data set states its licence" in body


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "`plain`"),
        ("`", "`` ` ``"),
        ("a``b", "``` a``b ```"),
        ("a|b", "`a\\|b`"),
        ("two\nlines \x1b[2J", "`two lines \N{REPLACEMENT CHARACTER}[2J`"),
        ("", "`(none)`"),
    ],
)
def test_code_within_a_line(text: str, shown: str) -> None:
    assert cards.code(text) == shown


def test_front_matter_cannot_be_ended_by_what_is_in_it() -> None:
    name = "x\n---\nlicense: mit"
    found = cards.front({"pretty_name": name, "tags": ["a: b", "no"]})
    assert re.findall(r"^[ \t]*---[ \t]*$", found, re.MULTILINE) == ["---", "---"], found
    assert YAML(typ="safe").load(found.removeprefix("---\n").removesuffix("---\n")) == {
        "pretty_name": name,
        "tags": ["a: b", "no"],
    }


# --- what is refused


def test_what_is_there_is_replaced_only_if_it_is_a_data_set_and_wanted(
    run: Path, selfloop: Selfloop, work: Path
) -> None:
    to = ("dataset", "first", "--to", "jsonl", "--out")
    assert selfloop(*to, "out").code == 0
    (work / "out" / "train.jsonl").write_text("older")
    again = selfloop(*to, "out")
    assert again.code == 2 and "is there already" in again.err
    assert (work / "out" / "train.jsonl").read_text() == "older"
    assert selfloop(*to, "out", "--force").code == 0
    assert len(read(work / "out" / "train.jsonl")) == 7
    for other in ("runs/first", ".", "runs/first/recipe.yaml"):
        never = selfloop(*to, other, "--force")
        assert never.code == 2 and "is no earlier data set" in never.err
    assert (run / "run.sqlite").is_file()


def test_what_cannot_be_written_leaves_nothing(
    run: Path, selfloop: Selfloop, work: Path, monkeypatch
) -> None:
    def full(part: Path, found: Any) -> None:
        (part / "train.jsonl").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(dataset_out.WRITERS, "jsonl", full)  # type: ignore[index]
    said = selfloop("dataset", "first", "--to", "jsonl", "--out", "out")
    assert (said.code, said.out) == (StoreError.exit_code, "")
    assert "the disk is full: " in said.err and "choose another place with --out" in said.err
    assert {path.name for path in work.iterdir()} - {"cache"} == {"runs"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere", "--to", "jsonl"], 5, "no run in runs/nowhere"),
        (["first", "--to", "csv"], 2, "'csv' is not one of 'jsonl', 'parquet', 'hf'"),
        (["first"], 2, "Missing option '--to'"),
        (
            ["first", "--to", "jsonl", "--only", "beleif"],
            2,
            "'beleif' is none. Did you mean 'belief'?",
        ),
        (
            ["first", "--to", "jsonl", "--form", "sft", "--only", "belief,undecided"],
            2,
            "no row for undecided questions",
        ),
        (["first", "--to", "jsonl", "--chat"], 2, "--chat is for --form sft and preference"),
    ],
)
def test_mistakes(
    words: list[str], code: int, message: str, run: Path, selfloop: Selfloop, work: Path
) -> None:
    said = selfloop("dataset", *words)
    assert (said.code, said.out) == (code, "") and message in said.err
    assert {path.name for path in work.iterdir()} - {"cache"} == {"runs"}


def test_nothing_to_write(write: Write, selfloop: Selfloop, work: Path) -> None:
    write(
        {
            "r.yaml": "rounds: 1\nbackend: scripted\n"
            "ask: {questions: 2, sources: [topics]}\nanswer: {samples: 2}\n"
        }
    )
    assert selfloop("run", "r.yaml").code == 0
    said = selfloop("dataset", "r", "--to", "jsonl", "--only", "failed")
    assert said.code == 1 and "no row to write, so there is no r-qa" in said.err


def test_a_missing_library_is_said_first(
    run: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    said = selfloop("dataset", "nowhere", "--to", "hf")
    assert said.code == 2 and "pip install 'selfloop[datasets]'" in said.err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = selfloop("dataset", "first", "--to", "parquet")
    assert said.code == 2 and "pip install 'selfloop[parquet]'" in said.err
