"""The data sets' loaders, on small files of the same form as the hub's, written here."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from selfloop_plugins.sources import datasets

from selfloop import AskContext, History, Question
from selfloop.config.prompts import Prompts
from selfloop.errors import MissingExtraError, RecipeError
from selfloop.evaluation.gold import judged
from selfloop.storage.parquet import save
from selfloop.testing import ScriptedBackend, history_of

PARQUET = pytest.param("parquet", marks=pytest.mark.extra("parquet"))
ROWS: dict[str, list[dict[str, Any]]] = {
    "nq_open": [
        {
            "question": "where is the seat of the us government",
            "answer": ["Washington, D.C.", "Washington", "Washington"],
        },
        {"question": "who nobody knows", "answer": []},
    ],
    "trivia_qa": [
        {
            "question": "Which Beatle sang Octopus's Garden?",
            "question_id": "tc_1",
            "entity_pages": {"title": []},
            "answer": {
                "aliases": ["Ringo Starr", "Starr, Ringo", "..."],
                "normalized_aliases": ["ringo starr", "starr ringo"],
                "matched_wiki_entity_name": "",
                "normalized_value": "ringo starr",
                "type": "WikipediaEntity",
                "value": "Ringo Starr",
            },
        },
        {
            "question": "Of the test split?",
            "answer": {"aliases": [], "normalized_aliases": [], "value": "<unk>"},
        },
    ],
    "web_questions": [
        {
            "url": "http://x/1",
            "question": "what does jamaican people speak?",
            "answers": ["Jamaican Creole", "English"],
        }
    ],
    "popqa": [
        {
            "id": 1,
            "question": "What is Ada Lovelace's occupation?",
            "prop": "occupation",
            "s_pop": 100,
            "possible_answers": '["mathematician", "Mathematiker\\u00adin"]',
        }
    ],
    "simpleqa": [
        {"metadata": "{'topic': 'Art'}", "problem": "Who painted it?", "answer": "Hilma af Klint"}
    ],
}
GOLD = {
    "nq_open": ("Washington, D.C.", "Washington"),
    "trivia_qa": ("Ringo Starr", "Starr, Ringo", "...", "ringo starr", "starr ringo"),
    "web_questions": ("Jamaican Creole", "English"),
    "popqa": ("mathematician", "Mathematiker\u00adin"),
    "simpleqa": ("Hilma af Klint",),
}


def ask_context(n: int = 100, history: History | None = None) -> AskContext:
    return AskContext(n, 1, 0, 1, ScriptedBackend(), history or History(), Prompts().render)


def written(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
    """Write rows as the hub's exports do: in CSV a list is JSON."""
    path = folder / f"rows.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == "json":
        path.write_text(json.dumps(rows))
    elif suffix == "parquet":
        save(path, {name: [row[name] for row in rows] for name in rows[0]})
    else:
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",")
            table.writeheader()
            for row in rows:
                table.writerow(
                    {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
                )
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", PARQUET])
@pytest.mark.parametrize("name", ROWS)
def test_loaders_keep_all_aliases(name: str, suffix: str, tmp_path: Path) -> None:
    rows = ROWS[name][:1] if suffix in ("csv", "tsv", "parquet") else ROWS[name]
    path = written(tmp_path, suffix, rows)
    # the form is told by itself
    for source in (datasets.Dataset(name=name, path=path), datasets.Dataset(path=path)):
        (question,) = source.ask(ask_context())
        assert (question.source, question.gold) == (name, GOLD[name])
    assert datasets.check(name=name, path=path, limit=1) is None


def test_aliases_are_compared_whole(tmp_path: Path) -> None:
    (question,) = datasets.Dataset(path=written(tmp_path, "jsonl", ROWS["nq_open"])).ask(
        ask_context()
    )
    assert judged(question, "washington dc") is True
    assert judged(question, "Washington, Texas") is judged(question, "...") is False
    assert judged(Question("Q?", "s"), "anything") is None


def test_a_pattern_decides_but_never_for_who_declines() -> None:
    question = Question("Q?", "s", gold=("seven",), gold_pattern="7|know")
    assert judged(question, "about 7") is True
    assert (
        judged(question, "seven")
        is judged(question, "I don't know, 7?")
        is judged(question, " ")
        is False
    )


def test_limit_draws_by_seed_and_keeps_the_order(tmp_path: Path) -> None:
    path = written(
        tmp_path, "jsonl", [{"question": f"Q{i:02}?", "answer": ["x"]} for i in range(50)]
    )

    def drawn(**options: Any) -> list[str]:
        return [q.text for q in datasets.Dataset(path=path, **options).ask(ask_context())]

    assert len(drawn()) == len(drawn(limit=60)) == 50
    assert drawn(limit=9) == drawn(limit=9) == sorted(drawn(limit=9))
    assert len(drawn(limit=9)) == 9
    assert drawn(limit=9) != drawn(limit=9, seed=1)
    assert drawn(limit=9) != drawn()[:9]


def test_each_question_once(tmp_path: Path) -> None:
    path = written(tmp_path, "jsonl", [{"question": f"Q{i}?", "answer": ["x"]} for i in range(5)])
    source = datasets.Dataset(path=path)
    history = history_of(["Q0?"], ["Q2?"])
    assert [q.text for q in source.ask(ask_context(2, history))] == ["Q1?", "Q3?"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "Q?"}', "there are no gold answers in it, only question"),
        ('{"question": "Q?", "answer": []}', r"1 without a gold answer \(line 1\)"),
        (
            '{"question": ["Q?"], "answer": [["x"]]}\n{"question": ["Q?"]}',
            "line 1: a list stands where a text",
        ),
        ('{"question": "Q?", "answers": {"x": "y"}}', "line 1: an answer is a mapping of x"),
        ('{"question": "", "answer": ["x"]}', r"1 without a question \(line 1\)"),
        ("{}\n{", "line 2: each line is .*: Expecting property name"),
        ("[]", "there is no row in it"),
        ("", "there is no row in it"),
    ],
)
def test_rows_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        datasets.check(path=path)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.json", "no.jsonl"])
def test_files_that_are_not_what_they_are_called(name: str, tmp_path: Path) -> None:
    if name != "no.jsonl":
        (tmp_path / name).write_bytes(b"\xff\x00 no table")
    with pytest.raises(RecipeError, match=r"cannot read |line 1: this is not UTF-8"):
        datasets.Dataset(path=tmp_path / name)


def test_what_must_be_said() -> None:
    with pytest.raises(RecipeError, match="a dataset needs a `name`"):
        datasets.check()
    with pytest.raises(
        RecipeError, match=r"no data set named 'triviaqa'. Did you mean 'trivia_qa'\?"
    ):
        datasets.check(name="triviaqa")
    assert datasets.check(name="trivia_qa", split="train") is None  # the hub is not asked yet


# --- the hub, played by a module of that name: the library is large, and there is no network here


def test_the_hub_is_read_with_the_split_that_has_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*args: Any, **options: Any) -> list[dict[str, Any]]:
        asked.append((*args, options["split"]))
        return ROWS["trivia_qa"]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    (question,) = datasets.Dataset(name="trivia_qa").ask(ask_context())
    assert question.gold == GOLD["trivia_qa"]
    datasets.Dataset(name="trivia_qa", split="train")
    assert asked == [("mandarjoshi/trivia_qa", "rc.nocontext", s) for s in ("validation", "train")]


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any, **options: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub.")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(
        RecipeError, match=r"Couldn't reach the Hub\. Without a network, bring its cache"
    ):
        datasets.Dataset(name="popqa")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'selfloop\[datasets\]'"):
        datasets.Dataset(name="simpleqa")
