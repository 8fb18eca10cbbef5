"""The reader of question data: all formats alike, every row accounted for, and known faults."""

import gzip
import importlib.util
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Selfloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfloop import data
from selfloop.data import Columns, cells, delimited, files, plain_text
from selfloop.errors import MissingExtraError, RecipeError

pytest.importorskip("pyarrow")
Write = Callable[[Mapping[str, str | bytes]], Path]


def benchmark() -> ModuleType:
    """Return benchmarks/readers.py, which writes the files."""
    path = Path(__file__).parents[2] / "benchmarks" / "readers.py"
    spec = importlib.util.spec_from_file_location("readers", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["readers"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


READERS = benchmark()


def read(
    folder: Path, name: str, content: str | bytes, use: data.Use = "eval", **options: Any
) -> data.Table:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return data.read(folder / name, use, **options)


def gold(table: data.Table) -> dict[str, tuple[str, ...]]:
    return {question.text: question.gold for question in table.questions}


def lost(table: data.Table) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {one.reason: (one.count, one.first) for one in table.left_out}


# --- every format alike


def test_the_same_rows_give_the_same_questions_in_every_format(tmp_path: Path) -> None:
    paths = list(READERS.format_paths(tmp_path, READERS.ROWS))
    assert len(paths) > 30
    others = [path.name for path in paths if READERS.pairs(data.read(path, "eval")) != READERS.ROWS]
    assert others == []


@pytest.mark.parametrize("path", sorted(READERS.ORIGINALS.iterdir()), ids=lambda path: path.name)
def test_the_own_files_of_data_sets(path: Path) -> None:
    table = data.read(path, "eval")
    one_each = [(question, answers[:1]) for question, answers in READERS.OWN]
    assert READERS.pairs(table) == (one_each if path.name.startswith("simple_qa") else READERS.OWN)
    assert lost(table) == (
        {"marked as impossible to answer": (1, (2,))} if "v2.0" in path.name else {}
    )
    assert table.layout not in ("", "dataset")


def test_broken_files_are_read_with_an_account_or_refused(tmp_path: Path) -> None:
    contents = READERS.broken_contents()
    outcomes = {
        path.name: READERS.outcome(path, contents.get(path.name, b""))
        for path in READERS.broken_paths(tmp_path)
    }
    assert len(outcomes) >= 120
    assert {name: one.text for name, one in outcomes.items() if one.kind == "FAULT"} == {}
    assert (
        outcomes["stray-quote.tsv"].kind == "read" and outcomes["cut-50.jsonl.gz"].kind == "refused"
    )


def test_the_check_of_broken_files_can_fail(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"question": "What is the number of thing 1?", "answers": ["x"]}\n'
    )
    written = b"number of thing 1, number of thing 2"
    assert READERS.outcome(tmp_path / "a.jsonl", written).kind == "FAULT"


WORDS = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="|\ufeff"), max_size=20
)
QUESTIONS = WORDS.map(lambda text: f"Who {text} was it?".replace("\x85", ""))
ANSWERS = st.lists(
    WORDS.map(lambda text: f"a {text.strip()} b"), min_size=1, max_size=3, unique=True
)


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.tuples(QUESTIONS, ANSWERS.map(tuple)),
        min_size=1,
        max_size=4,
        unique_by=lambda row: row[0],
    )
)
def test_any_rows_come_back_from_every_format(rows: Any, tmp_path: Path) -> None:
    reference = READERS.pairs(read(tmp_path, "reference.jsonl", READERS.jsonl_text(rows)))
    assert set(dict(reference)) <= {question for question, _ in rows}
    for name, content in READERS.formats(rows).items():
        if name != "unquoted.tsv" or not any(
            "\t" in text for row in rows for text in (row[0], *row[1])
        ):
            assert READERS.pairs(read(tmp_path, name, content)) == reference, name


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text("\n\r\t,;\"'[]{}:|\\ aQ1\u2028\ufeff", max_size=80).map(
            lambda text: ("question,answers\n" + text).encode()
        ),
        st.text("\n\"'[]{}:,\\ a1", max_size=60).map(
            lambda text: ('{"question": "Q?", "answers": [' + text).encode()
        ),
        st.binary(max_size=100).map(lambda tail: b"PAR1" + tail),
        st.binary(max_size=100).map(lambda tail: b"\x1f\x8b\x08\0" + tail),
    ),
    suffix=st.sampled_from(
        ["", ".jsonl", ".JSON", ".csv", ".tsv", ".txt", ".md", ".parquet", ".csv.gz"]
    ),
    use=st.sampled_from(["ask", "eval", "score"]),
    skip_broken=st.booleans(),
)
def test_any_bytes_are_read_or_refused(
    content: bytes, suffix: str, use: Any, skip_broken: bool, tmp_path: Path
) -> None:
    try:
        table = read(tmp_path, f"any{suffix}", content, use, skip_broken=skip_broken)
    except RecipeError as error:
        assert str(tmp_path / f"any{suffix}") in str(error)
    else:
        assert table.rows == len(table.questions) + len(table.merged) + sum(
            one.count for one in table.left_out
        )


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=5))
def test_any_list_is_read_from_the_notation_of_json_and_python(texts: list[str]) -> None:
    expected = [text.strip() for text in texts]
    expected = [text for text in dict.fromkeys(expected) if text]
    assert cells.texts(json.dumps(texts)) == cells.texts(texts) == expected
    assert cells.texts(repr(texts)) == expected


# --- cells and columns


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("['Paris', 'Paris, France']", ["Paris", "Paris, France"]),
        ("['Paris' 'Lyon']", ["Paris", "Lyon"]),  # numpy: Python would read one text, ParisLyon
        ("array(['Paris', \"Côte d'Or\"], dtype=object)", ["Paris", "Côte d'Or"]),
        ("['a'\n 'b']", ["a", "b"]),
        ("('a', 'b')", ["a", "b"]),
        ("{'text': array(['Paris'], dtype=object), 'answer_start': array([3])}", ["Paris"]),
        ('{"value": "Ringo", "aliases": ["Starr"], "type": "X"}', ["Ringo", "Starr"]),
        ("[1 2.5 nan]", ["1", "2.5"]),
        ("Paris|Lutetia", ["Paris", "Lutetia"]),
        ('(list (description "Paris, France") (description Lyon))', ["Paris, France", "Lyon"]),
        ("|x|", ["|x|"]),
        ("[citation needed]", ["[citation needed]"]),
        ("(I Can't Get No) Satisfaction", ["(I Can't Get No) Satisfaction"]),
        ("__import__('os')", ["__import__('os')"]),
        ("A", ["A"]),
        ("+", ["+"]),
        (8, ["8"]),
        (True, ["true"]),
        (None, []),
        (float("nan"), []),
        ([8, None, "eight", ""], ["8", "eight"]),
        ({"text": ["Paris"], "answer_start": [3]}, ["Paris"]),
        ({"value": "<unk>", "aliases": []}, []),
        ([{"text": "Paris"}, {"text": "Paris"}], ["Paris"]),
        ("[" * 100_000, ["[" * 100_000]),
    ],
)
def test_the_answers_of_a_cell(cell: Any, texts: list[str]) -> None:
    assert cells.texts(cell) == texts


def test_columns_are_named_by_the_user_and_dotted(tmp_path: Path) -> None:
    row = {"qa": {"question": "Who?", "gold": [{"t": "x"}, {"t": "y"}]}, "n": 1}
    wanted = Columns("qa.question", "qa.gold.t")
    assert gold(read(tmp_path, "a.jsonl", json.dumps(row), wanted=wanted)) == {"Who?": ("x", "y")}
    text = 'q,a\nWho?,"{""text"": [""x""]}"\n'
    assert gold(read(tmp_path, "a.csv", text, wanted=Columns("q", "a.text"))) == {"Who?": ("x",)}
    with pytest.raises(
        RecipeError,
        match=r"no column 'quest'\. Did you mean 'question'\? Its columns: question, answers",
    ):
        read(tmp_path, "b.csv", "question,answers\nQ?,a\n", wanted=Columns("quest"))


def test_usual_names_in_any_case_and_what_is_left_comes_out_again(tmp_path: Path) -> None:
    table = read(tmp_path, "a.csv", "ID,Query,Gold Answers,popularity\n7,Who?,x,12\n")
    (question,) = table.questions
    assert (question.text, question.gold, question.other_columns) == (
        "Who?",
        ("x",),
        {"ID": "7", "popularity": "12"},
    )
    assert table.columns == {"question": "Query", "gold": "Gold Answers"}


# --- what is said


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    rows = [
        {"question": "Who?", "answers": ["a"]},
        {"question": "who ?", "answers": ["b"], "id": 2},
        {"question": "", "answers": ["c"]},
        {"question": "When?", "answers": None},
        {},
        {"question": "Where?", "answers": ["A", "+"]},
    ]
    table = read(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert gold(table) == {"Who?": ("a", "b"), "Where?": ("A", "+")}
    assert table.summary().splitlines() == [
        f"{tmp_path}/a.jsonl: JSONL, 6 rows, 2 questions. Columns: question (question), answers "
        "(gold answers); "
        "kept beside them: id",
        "  left out: 1 without a question (line 3), 1 without a gold answer (line 4), 1 empty "
        "(line 5)",
        "  merged into an earlier row that asks the same, gold answers united: 1 (line 2)",
    ]
    assert table.plain()["left_out"][0] == {"reason": "without a question", "rows": 1, "first": [3]}


def test_questions_that_differ_are_not_merged(tmp_path: Path) -> None:
    texts = [
        "Who made C?",
        "Who made C++?",
        "Who made C#?",
        "What is -5?",
        "What is 5?",
        "What is 1.5?",
        "What is 15?",
    ]
    table = read(tmp_path, "a.txt", "\n".join(texts), "ask")
    assert [question.text for question in table.questions] == texts


def test_a_limit_is_a_random_sample_in_every_format(tmp_path: Path) -> None:
    rows = [(f"Who was number {i:03}?", ("x",)) for i in range(100)]
    drawn = {
        name: [question.text for question in read(tmp_path, name, content).sampled(5).questions]
        for name, content in READERS.formats(rows).items()
    }
    first = drawn["rows.jsonl"]
    assert len(first) == 5 and first == sorted(first) and first != [text for text, _ in rows[:5]]
    assert all(each == first for each in drawn.values())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "question,answers\nWhé?,a\n".encode("latin-1"),
            r"a.csv, line 2: this is not UTF-8.*iconv -f WINDOWS",
        ),
        ("a.txt", b"Who?\nWh\0?\n", "a.txt, line 2: there is a null byte"),
        ("a.csv", "question,answers,answers\nQ?,a,b\n", "line 1: two columns are called 'answers'"),
        ("a.csv", "question,answers\nQ?,a,b\n", "line 2: it has 3 cells, and the header names 2"),
        ("a.csv", "Who was it?,a\nWho?,b\n", "no column of questions is known among Who was it"),
        (
            "a.csv",
            'question,answers\n"A?,a\nB"?,b\n"C?,c\nD",d\n',
            "line 4: a quote opens here and closes in line 5",
        ),
        (
            "a.jsonl",
            '{"question": "Q?"}\n' + "[" * 100_000,
            "line 2: each line is .* nested too deeply",
        ),
        ("a.json", "[" * 100_000, "nested too deeply"),
        (
            "a.json",
            '{"train": [{"question": "a"}], "test": [{"question": "b"}]}',
            "several lists of rows: train, test",
        ),
        (
            "a.md",
            "| question | answers |\n|---|---|\n| a | b |",
            "line 2: this is a Markdown table",
        ),
        ("a.yaml", "a: 1", "files of the kind .yaml are not read"),
        ("a.xlsx", b"PK\x03\x04...", "zip archive, as spreadsheets are too"),
        ("a.csv", "<html>", "web page"),
        ("a.csv.gz", gzip.compress(b"question\nWho?\n", mtime=0)[:-9], "the .gz has no end"),
        (
            "a.csv.gz",
            gzip.compress(b"question\nWho?\n", mtime=0) + b"more",
            "something else after the end of the .gz",
        ),
    ],
)
def test_refusals_name_the_line_and_what_to_do(
    name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        read(tmp_path, name, content, "ask")


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    with pytest.raises(RecipeError, match="holds more than"):
        read(tmp_path, "a.csv.gz", gzip.compress(b"a" * 100_000, mtime=0))


def test_long_cells_are_read_and_the_limit_of_csv_is_left_as_it_was(tmp_path: Path) -> None:
    import csv

    before = csv.field_size_limit()
    table = read(tmp_path, "a.csv", f'question,answers\nQ?,"{"x" * 200_000}"\n{"y" * 200_000}?,z\n')
    assert [len(question.text) for question in table.questions] == [2, 200_001]
    assert csv.field_size_limit() == before


def test_parquet_needs_pyarrow_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert read(tmp_path, "a.csv", "question\nQ?\n", "ask").rows == 1
    with pytest.raises(MissingExtraError, match=r"pip install 'selfloop\[parquet\]'"):
        read(tmp_path, "a.parquet", b"PAR1....PAR1")


def test_the_splits_of_a_saved_data_set(tmp_path: Path) -> None:
    for split in ("train", "test"):
        READERS.save_to_disk(
            tmp_path / "set" / split, READERS.arrow_table([(f"Who is in {split}?", ("x",))])
        )
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(
        RecipeError,
        match=f"holds the splits train, test. Give the folder of one: {tmp_path}/set/train",
    ):
        data.read(tmp_path / "set", "eval")
    assert gold(data.read(tmp_path / "set", "eval", split="test")) == {"Who is in test?": ("x",)}
    assert gold(data.read(tmp_path / "set" / "train", "eval")) == {"Who is in train?": ("x",)}


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        (
            "# Who?\r- When?\r\n* [ ] Where?\n\n> What?\n---\n```",
            ["Who?", "When?", "Where?", "What?"],
        ),
        ("1. Who?\n2. When?\n3) Where?", ["Who?", "When?", "Where?"]),
        ("2. Bundesliga: who won?\nWho lost?", ["2. Bundesliga: who won?", "Who lost?"]),
        (
            "1984: who wrote it?\n-5 and 5: which is more?",
            ["1984: who wrote it?", "-5 and 5: which is more?"],
        ),
        ("a\u2028b\x0bc\x85d", ["a\u2028b\x0bc\x85d"]),
    ],
)
def test_marks_of_lists_are_left_off(text: str, questions: list[str], tmp_path: Path) -> None:
    table = read(tmp_path, "a.md", text, "ask")
    assert [question.text for question in table.questions] == questions
    assert plain_text.read("Who?").notes == []


def test_a_stray_quote_never_swallows_rows() -> None:
    raw = delimited.read(
        'question\tanswers\nA?\ta\n"B?\tb\nC?\tc\nD"?\td\n', ".tsv", lambda name: name == "question"
    )
    assert [row.cells["answers"] for row in raw.rows] == ["a", "b", "c", "d"]
    assert raw.notes == ["quotes that do not pair are read as they stand (line 3)"]
    sound = delimited.read(
        'question,answers\n"A, you?\nB, me?",a\nC?,c\n', ".csv", lambda name: name == "question"
    )
    assert [row.number for row in sound.rows] == [2, 4]


# --- the faults, as a person meets them: each row of the first table of faults.md


WORLD = {r"France\?\nAnswer:\s*$": ["Paris"], "": ["Balmar V"]}
RECIPE = """\
backend: {kind: scripted, script: world.json}
ask: {questions: 9, sources: [{kind: file, path: FILE}]}
answer: {samples: 2}
critique: none
detectors: [agreement]
"""
KNOWN = "What is the capital of France?"


@pytest.fixture
def folder(write: Write) -> Path:
    return write({"s.yaml": RECIPE, "world.json": json.dumps(WORLD)})


def evaluated(selfloop: Selfloop, *args: object) -> dict[str, Any]:
    said = selfloop("eval", "s.yaml", "--json", "--data", *args)
    assert said.code == 0, said.err
    return dict(json.loads(said.out))


def asked(selfloop: Selfloop, run: str) -> list[dict[str, Any]]:
    return data.rows(Path(run) / "eval.parquet")


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_eval_always_asks_the_model(
    form: str, folder: Path, write: Write, selfloop: Selfloop
) -> None:
    row = {
        "question": "Who was the first king of Zorvania?",
        "answer": "Balmar IV",
        "answers": ["Balmar IV"],
    }
    write({f"q.{form}": json.dumps(row if form == "jsonl" else [row])})
    found = evaluated(selfloop, f"q.{form}")
    assert found["accuracy"]["chosen"]["value"] == 0  # the model says Balmar V
    (answer,) = asked(selfloop, found["run"])
    assert (answer["answer"], answer["data_answer"]) == ("Balmar V", "Balmar IV")


@pytest.mark.parametrize(
    "name", ["q.csv", "q.tsv", "q.json", "q.JSONL", "q.ndjson", "q.parquet", "q.csv.gz"]
)
def test_score_scores_the_rows_of_every_format(
    name: str, folder: Path, write: Write, selfloop: Selfloop
) -> None:
    rows = [
        {"id": 1, "question": KNOWN, "answer": "Paris"},
        {"id": 2, "question": KNOWN, "answer": "Rome"},
    ]
    comma = f"id,question,answer\n1,{KNOWN},Paris\n2,{KNOWN},Rome\n"
    content: dict[str, str | bytes] = {
        "q.csv": comma,
        "q.tsv": comma.replace(",", "\t"),
        "q.json": json.dumps(rows),
        "q.JSONL": "\n".join(map(json.dumps, rows)),
        "q.ndjson": "\n".join(map(json.dumps, rows)),
        "q.parquet": READERS.parquet_bytes(READERS.pa.Table.from_pylist(rows)),
        "q.csv.gz": gzip.compress(comma.encode(), mtime=0),
    }
    write({name: content[name]})
    said = selfloop("score", "s.yaml", name, "--json")
    assert said.code == 0, said.err
    scored = [json.loads(line) for line in said.out.splitlines()]
    assert [(str(row["id"]), row["answer"], row["confidence"]) for row in scored] == [
        ("1", "Paris", 1),
        ("2", "Rome", 0),
    ]
    assert all(row["columns"] == {"id": row["id"]} for row in scored)
    assert (
        "2 rows, 2 questions. Columns: question (question), answer (to be judged); kept beside "
        "them: id" in said.err
    )


@pytest.mark.parametrize("name", ["q.csv", "q.tsv", "q.json", "q.ndjson", "q.JSONL", "q.txt"])
def test_the_source_file_asks_questions_only(
    name: str, folder: Path, write: Write, selfloop: Selfloop
) -> None:
    rows = [{"question": KNOWN}, {"question": "What is the capital of Peru?"}]
    lines = "\n".join(map(json.dumps, rows))
    content = {
        "q.csv": f"question\n{KNOWN}\nWhat is the capital of Peru?\n",
        "q.tsv": f"id\tquestion\n1\t{KNOWN}\n2\tWhat is the capital of Peru?\n",
        "q.json": json.dumps(rows, indent=1),
        "q.txt": f"# {KNOWN}\r- What is the capital of Peru?\r",
    }
    write({name: content.get(name, lines), "r.yaml": RECIPE.replace("FILE", name)})
    said = selfloop("run", "r.yaml", "--quiet")
    assert said.code == 0, said.err
    shown = selfloop("dataset", "r", "--to", "jsonl", "--out", "out")
    assert shown.code == 0, shown.err
    assert [row["question"] for row in data.rows(folder / "out" / "train.jsonl")] == [
        KNOWN,
        "What is the capital of Peru?",
    ]


SQUAD = {"question": KNOWN, "answers": {"text": ["Paris"], "answer_start": [3]}}
NAMED = {
    "squad.json": json.dumps([SQUAD]),
    "squad.parquet": READERS.parquet_bytes(READERS.pa.Table.from_pylist([SQUAD])),
    "python.csv": f"question,answers\n{KNOWN},\"['Lutetia', 'Paris']\"\n",
    "bars.csv": f"question,answers\n{KNOWN},Lutetia|Paris\n",
    "stray.tsv": f'question\tanswers\n"{KNOWN}\tParis\n'
    "A France?\tParis\nB France?\tParis\nC France?\tParis\n",
    "semicolon.csv": f"question;answer\n{KNOWN};Paris\n",
    "commas.csv": f"question,answers\n,,\n{KNOWN},Paris\n",
    "long.csv": f"question,answers\n{KNOWN},Paris\nA France?,{'x' * 200_000}|Paris\n",
}


@pytest.mark.parametrize("name", NAMED)
def test_gold_answers_are_found(name: str, folder: Path, write: Write, selfloop: Selfloop) -> None:
    write({name: NAMED[name]})
    found = evaluated(selfloop, name)
    assert found["accuracy"]["chosen"]["value"] == 1
    assert found["questions"] == {"stray.tsv": 4, "long.csv": 2}.get(name, 1)


def test_rows_without_gold_are_said_and_stored(
    folder: Path, write: Write, selfloop: Selfloop
) -> None:
    rows = [(KNOWN, ["Paris"]), ("Q?", None), ("Which vitamin?", ["A"]), ("Which sign?", ["+"])]
    write({"q.jsonl": "\n".join(json.dumps({"question": q, "answers": a}) for q, a in rows)})
    said = selfloop("eval", "s.yaml", "--data", "q.jsonl")
    assert "left out: 1 without a gold answer (line 2)" in said.err
    assert "q.jsonl: 4 rows, left out: 1 without a gold answer" in said.out
    found = json.loads((folder / "runs/eval-q/eval.json").read_text())
    assert found["questions"] == 3
    assert found["data"]["left_out"] == [
        {"reason": "without a gold answer", "rows": 1, "first": [2]}
    ]


@pytest.mark.parametrize("name", ["q.csv", "q.jsonl"])
def test_the_same_question_is_asked_once_with_all_gold(
    name: str, folder: Path, write: Write, selfloop: Selfloop
) -> None:
    rows = [{"question": KNOWN, "answers": ["Lutetia"]}, {"question": KNOWN, "answers": ["Paris"]}]
    write(
        {
            name: f"question,answers\n{KNOWN},Lutetia\n{KNOWN},Paris\n"
            if "csv" in name
            else "\n".join(map(json.dumps, rows))
        }
    )
    found = evaluated(selfloop, name)
    assert (found["questions"], found["accuracy"]["chosen"]["value"], found["data"]["merged"]) == (
        1,
        1,
        1,
    )


@pytest.mark.parametrize("answers", [8, [8], 8.0, [8, None]])
def test_numbers_are_text(answers: Any, tmp_path: Path) -> None:
    table = read(tmp_path, "q.jsonl", json.dumps({"question": "How many?", "answers": answers}))
    assert gold(table) == {"How many?": (str(answers if not isinstance(answers, list) else 8),)}
    table = read(tmp_path, "q.jsonl", json.dumps({"question": "How many?", "answer": 8}), "score")
    assert table.questions[0].answer == "8"


def test_a_limit_is_random_whatever_the_format(
    folder: Path, write: Write, selfloop: Selfloop
) -> None:
    rows = [{"question": f"Who is number {i}?", "answers": ["x"]} for i in range(30)]
    comma = "question,answers\n" + "".join(f"{row['question']},x\n" for row in rows)
    write({"q.csv": comma, "p.jsonl": "\n".join(map(json.dumps, rows))})
    drawn = []
    for name in ("q.csv", "p.jsonl"):
        found = evaluated(selfloop, name, "--limit", 3)
        assert found["data"]["limit"] == 3
        drawn.append([row["question"] for row in asked(selfloop, found["run"])])
    assert drawn[0] == drawn[1] != [row["question"] for row in rows[:3]]
    assert "drawn at random" in selfloop("eval", "--help").out


def test_deep_nesting_is_one_line(folder: Path, write: Write, selfloop: Selfloop) -> None:
    write({"q.jsonl": "[" * 100_000 + "\n"})
    said = selfloop("eval", "s.yaml", "--data", "q.jsonl")
    assert said.code == 2 and "line 1: each line is" in said.err and "nested too deeply" in said.err


@pytest.mark.parametrize("command", ["eval", "score"])
def test_columns_named_at_the_command_line(
    command: str, folder: Path, write: Write, selfloop: Selfloop
) -> None:
    row = {"qa": {"ask": KNOWN, "said": "Paris"}, "gold": {"list": ["Paris"]}, "id": "x-1"}
    write({"q.jsonl": json.dumps(row)})
    named = ["--question-column", "qa.ask", "--answers-column", "gold.list"]
    if command == "score":
        said = selfloop(
            "score", "s.yaml", "q.jsonl", "--json", *named, "--answer-column", "qa.said"
        )
        assert said.code == 0, said.err
        scored = json.loads(said.out)
        assert (scored["id"], scored["confidence"]) == ("x-1", 1)
    else:
        found = evaluated(selfloop, "q.jsonl", *named)
        assert found["accuracy"]["chosen"]["value"] == 1
        assert asked(selfloop, found["run"])[0]["id"] == "x-1"
    wrong = selfloop(
        command,
        "s.yaml",
        *(["--data"] * (command == "eval")),
        "q.jsonl",
        "--question-column",
        "qaa",
    )
    assert wrong.code == 2 and "there is no column 'qaa'. Did you mean 'qa'?" in wrong.err


def test_broken_lines_are_left_out_where_that_is_asked_for(
    folder: Path, write: Write, selfloop: Selfloop
) -> None:
    good = json.dumps({"question": KNOWN, "answers": ["Paris"]})
    write({"q.jsonl": f"{good}\nno json\n".encode() + b'{"question": "\xe9"}\n'})
    refused = selfloop("eval", "s.yaml", "--data", "q.jsonl")
    assert refused.code == 2 and "line 3: this is not UTF-8" in refused.err
    found = evaluated(selfloop, "q.jsonl", "--skip-broken")
    assert (found["questions"], found["data"]["left_out"][0]["rows"]) == (1, 2)


@pytest.mark.parametrize("command", ["eval", "score"])
def test_standard_input(
    command: str, folder: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = f"question,answer\n{KNOWN},Paris\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    said = selfloop(command, "s.yaml", *(["--data"] * (command == "eval")), "-", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert (found["questions"] if command == "eval" else found["confidence"]) == 1
    run = "eval-stdin" if command == "eval" else "score"
    assert selfloop("resume", run).code == 0  # what was read is kept beside the runs


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe(folder: Path, selfloop: Selfloop) -> None:
    os.mkfifo(folder / "pipe")
    content = f"question,answers\n{KNOWN},Paris\n"
    writing = threading.Thread(target=lambda: (folder / "pipe").write_text(content), daemon=True)
    writing.start()
    assert evaluated(selfloop, "pipe")["questions"] == 1
    writing.join(timeout=10)


def test_json_stays_alone_on_standard_output(
    folder: Path, write: Write, selfloop: Selfloop
) -> None:
    write({"q.csv": f"question,answers,confidence\n{KNOWN},Paris,high\n"})
    said = selfloop("eval", "s.yaml", "--data", "q.csv", "--json")
    json.loads(said.out)
    assert "q.csv: CSV, separated by commas, 1 row, 1 question." in said.err
    (row,) = asked(selfloop, "runs/eval-q")
    assert (row["confidence"], row["data_confidence"]) == (1.0, "high")


def test_new_recipe_counts_questions_as_the_run_reads_them(
    folder: Path, write: Write, selfloop: Selfloop
) -> None:
    write({"q.csv": f'question,answers\n"{KNOWN}\nSay",Paris\nWho?,x\nwho ?,y\n'})
    assert (
        selfloop("new", "recipe", "n.yaml", "--model", "scripted", "--questions", "q.csv").code == 0
    )
    assert selfloop("check", "n.yaml").out == "n.yaml can run: 1 round, 2 questions at most.\n"
    refused = selfloop("new", "recipe", "m.yaml", "--model", "scripted", "--questions", "s.yaml")
    assert refused.code == 2 and "files of the kind .yaml are not read" in refused.err
