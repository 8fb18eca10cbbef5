"""`selfloop beliefs`: beliefs across runs, their history, their changes and why, and exports."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Selfloop, cpu_limit

from selfloop.records import Attempt, Completion, Outcome, Question, Round
from selfloop.storage.store import Store

Write = Callable[[Mapping[str, str]], Path]

ACTS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# Two questions a round; the third asks for the first again, and says so: else it would be dropped.
SOURCE = """\
from selfloop import Component, Question, hookimpl

TEXTS = (
    "What is the capital of Egypt?", "Who wrote Hamlet?", "Which is the capital of Egypt?",
    "What did nobody ever say?", "How many legs has a spider?", "Which planet is the largest?",
)


class Listed:
    def ask(self, context):
        new = [text for text in TEXTS if text not in context.history.questions][:context.n]
        return [self.question(text) for text in new]

    def question(self, text):
        if text.startswith("Which is"):
            return Question(text, "listed", variant="reworded", variant_of=TEXTS[0])
        return Question(text, "listed")


@hookimpl
def selfloop_question_sources():
    return [Component("listed", Listed)]
"""
ANSWERS = {
    r"What is the capital of Egypt\?\nAnswer:\s*$": ["Cairo"],
    r"Who wrote Hamlet\?\nAnswer:\s*$": ["Shakespeare"],
    r"Which is the capital of Egypt\?\nAnswer:\s*$": ["Giza"],
    r"nobody ever say\?\nAnswer:\s*$": ["I don't know"],
    r"spider\?\nAnswer:\s*$": ["Eight"],
    r"": ["Jupiter"],
}
RECIPE = """\
rounds: 3
plugins: [listed.py]
backend: {kind: scripted, script: script.json}
ask: {questions: 2, sources: [listed], scorers: []}
answer: {samples: 4}
critique: none
detectors: [agreement]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `library` copies: two runs for each of many tests take long."""
    return tmp_path_factory.mktemp("finished") / "library"


@pytest.fixture
def library(finished: Path, work: Path, write: Write, selfloop: Selfloop) -> Path:
    """Two runs: `one` contradicts itself in round 2; `two` has other answers, and one round."""
    if finished.is_dir():
        shutil.copytree(finished, work, dirs_exist_ok=True)
        return work
    folder = write({"script.json": json.dumps(ANSWERS), "listed.py": SOURCE, "one.yaml": RECIPE})
    assert selfloop("run", "one.yaml").code == 0
    other = json.dumps({r"Hamlet\?\nAnswer:\s*$": ["Marlowe"], "": ["Cairo, Egypt"]})
    write({"script.json": other, "two.yaml": RECIPE.replace("rounds: 3", "rounds: 1")})
    assert selfloop("run", "two.yaml").code == 0
    shutil.copytree(folder, finished)
    return folder


def made(folder: Path, *rounds: list[Attempt], model: str = "tiny") -> None:
    """Store a run."""
    folder.parent.mkdir(exist_ok=True)
    store = Store(folder, write=True)
    store.begin_session({})
    store.set_meta(model={"name": model})
    for number, attempts in enumerate(rounds, 1):
        store.save_round(Round(number, tuple(attempts)))
    store.close()


def attempt(
    text: str, answer: str, decision: Any = "belief", sure: float | None = 0.8, **more: Any
) -> Attempt:
    question = Question(text, "topics", "rivers", **more)
    return Attempt(
        question,
        draft=Completion(answer),
        decision=decision,
        confidence=sure,
        reason=f"confidence {sure}",
    )


def rows(said: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(said.out)
    return found


# --- the table


def test_what_all_runs_hold(library: Path, selfloop: Selfloop) -> None:
    said = selfloop("beliefs")
    assert said.code == 0, said.err
    head, *lines = said.out.splitlines()
    assert head == "5 beliefs in 2 runs"
    assert "  1.00  Who wrote Hamlet? — Shakespeare  (one, round 1)" in lines
    assert "  1.00  Who wrote Hamlet? — Marlowe  (two, round 1)" in lines
    assert "  1.00  What is the capital of Egypt? — Cairo, Egypt  (two, round 1)" in lines, (
        "in `one` it was lowered"
    )
    at = [i for i, line in enumerate(lines) if "Hamlet" in line]
    assert at[1] == at[0] + 1, "runs that hold the same question stand together"


def test_one_run(library: Path, selfloop: Selfloop) -> None:
    by_name, by_path = (
        selfloop("beliefs", "one"),
        selfloop("beliefs", "runs/one", "runs/one", "one"),
    )
    assert by_name == by_path
    assert by_name.out == (
        "3 beliefs in one\n"
        "  1.00  Who wrote Hamlet? — Shakespeare  (round 1)\n"
        "  1.00  How many legs has a spider? — Eight  (round 3)\n"
        "  1.00  Which planet is the largest? — Jupiter  (round 3)\n"
    )


def test_search_looks_into_questions_and_answers(library: Path, selfloop: Selfloop) -> None:
    assert [row["answer"] for row in rows(selfloop("beliefs", "--search", "SHAKES", "--json"))] == [
        "Shakespeare"
    ]
    assert len(rows(selfloop("beliefs", "--search", "hamlet", "--json"))) == 2
    assert selfloop("beliefs", "--search", "nowhere").out == "0 beliefs in 2 runs\n"
    assert rows(selfloop("beliefs", "--search", "nowhere", "--json")) == []


def test_least_is_of_beliefs(work: Path, selfloop: Selfloop) -> None:
    made(
        work / "runs/r",
        [
            attempt("A?", "a", sure=0.8),
            attempt("B?", "b", sure=0.79),
            attempt("C?", "c", "declined"),
        ],
    )
    assert [
        row["question"] for row in rows(selfloop("beliefs", "--min-confidence", 0.8, "--json"))
    ] == ["A?"]
    both = rows(selfloop("beliefs", "--min-confidence", 0.8, "--declined", "--json"))
    assert [(row["question"], row["answer"]) for row in both] == [
        ("A?", "a"),
        ("C?", "I don't know"),
    ]


def test_declined_ones_are_no_answers(library: Path, selfloop: Selfloop) -> None:
    out = selfloop("beliefs", "one", "--declined").out
    assert out.startswith('3 beliefs, 1 "I don\'t know" in one\n')
    assert "        What did nobody ever say? — I don't know  (round 2)\n" in out


def test_merge_says_how_many_runs_agree(work: Path, selfloop: Selfloop) -> None:
    made(work / "runs/a", [attempt("What is it?", "Nile", sure=0.7)])
    made(work / "runs/b", [attempt("what is IT", "the Nile river", sure=0.9)])
    made(work / "runs/c", [attempt("What is it?", "Congo", sure=0.6)])
    made(
        work / "runs/d",
        [attempt("What is it?", "Congo", "declined", sure=0.1), attempt("Who?", "x", "undecided")],
    )
    assert selfloop("beliefs", "--merge").out == (
        "1 belief in 4 runs\n  0.90  what is IT — the Nile river  (b, round 1; 2 runs agree, 1 "
        "differs)\n"
    )
    (row,) = rows(selfloop("beliefs", "--merge", "--declined", "--json"))
    assert (row["runs_agree"], row["runs_differ"], row["answer"]) == (2, 2, "the Nile river")


def test_json_has_all_there_is_to_a_row(work: Path, selfloop: Selfloop) -> None:
    made(work / "runs/r", [attempt("Which river?", "Nile")])
    assert rows(selfloop("beliefs", "r", "--json")) == [
        {
            "question": "Which river?",
            "answer": "Nile",
            "confidence": 0.8,
            "round": 1,
            "run": "r",
            "model": "tiny",
            "source": "topics",
            "topic": "rivers",
            "decision": "belief",
        }
    ]


def test_a_repeat_that_was_dropped_or_failed_ends_no_belief(work: Path, selfloop: Selfloop) -> None:
    made(
        work / "runs/r",
        [attempt("A?", "a")],
        [attempt("A?", "", "dropped")],
        [attempt("A?", "", "failed")],
    )
    assert [row["answer"] for row in rows(selfloop("beliefs", "--json"))] == ["a"]
    assert selfloop("beliefs", "--flipped").out.startswith(
        "0 no longer held, 0 now held, 0 another answer"
    )


# --- what became of a belief


def test_history_of_a_belief_that_was_contradicted(library: Path, selfloop: Selfloop) -> None:
    said = selfloop("beliefs", "--history", "what is the CAPITAL")
    assert said.out == (
        "What is the capital of Egypt?\n"
        "  one, round 1  1.00 belief    Cairo\n"
        "  one, round 2  0.50 undecided Giza\n"
        "      asked: Which is the capital of Egypt?\n"
        "      confidence 0.50, contradicts 'What is the capital of Egypt?': Cairo\n"
        "  one, round 2  0.50 undecided Cairo  <- no longer held\n"
        "      contradicted by 'Which is the capital of Egypt?': Giza\n"
        "  two, round 1  1.00 belief    Cairo, Egypt\n"
    )
    assert (
        "contradicts 'What is the capital of Egypt?': Cairo"
        in selfloop("beliefs", "--history", "which is the c").out
    )
    assert selfloop("beliefs", "--history", "no such").out == (
        "no question that contains 'no such' was asked in 2 runs\n"
    )


def test_history_has_the_variants(work: Path, selfloop: Selfloop) -> None:
    first = attempt("Which river is longest?", "Nile")
    made(
        work / "runs/r",
        [first],
        [
            attempt(
                "Which is the longest river?",
                "Nile",
                variant_of=first.question.text,
                variant="reworded",
            )
        ],
        [
            attempt(
                "Longest: which river?",
                "Nile",
                variant_of="Which is the longest river?",
                variant="reworded",
            )
        ],
        [
            attempt(
                "What is the Nile?", "A river", variant_of=first.question.text, variant="reversed"
            )
        ],
        [
            attempt(
                "Which river is shortest?",
                "Nile",
                variant_of=first.question.text,
                variant="swapped",
            )
        ],
    )
    (told,) = rows(selfloop("beliefs", "--history", "longest", "--json"))
    assert told["question"] == first.question.text
    assert [(o["round"], o["variant"]) for o in told["outcomes"]] == [
        (1, ""),
        (2, "reworded"),
        (3, "reworded"),
        (4, "reversed"),
    ]
    assert (
        "      asked: What is the Nile?\n"
        in selfloop("beliefs", "--history", "What is the Nile").out
    )
    assert len(rows(selfloop("beliefs", "--history", "river", "--json"))) == 2


def test_what_flipped_and_why(library: Path, selfloop: Selfloop) -> None:
    said = selfloop("beliefs", "--flipped")
    assert said.out == (
        "1 no longer held, 0 now held, 0 another answer; in 2 runs\n"
        "  no longer held  What is the capital of Egypt? — Cairo  1.00 -> 0.50 (one, round 2)\n"
        "      contradicted by 'Which is the capital of Egypt?': Giza\n"
    )
    (flip,) = rows(selfloop("beliefs", "--flipped", "--json"))
    assert (flip["what"], flip["before"]["round"], flip["after"]["round"]) == ("lost", 1, 2)
    assert selfloop("beliefs", "--flipped", "--search", "Hamlet").out.startswith("0 no longer held")
    assert selfloop("beliefs", "--flipped", "--search", "cairo").out.startswith("1 no longer held")


def test_each_kind_of_flip(work: Path, selfloop: Selfloop) -> None:
    reworded = {"variant_of": "B?", "variant": "reworded"}
    made(
        work / "runs/r",
        [
            attempt("A?", "one"),
            attempt("B?", "b", "declined", 0.1),
            attempt("C?", "c"),
            attempt("D?", "d", "undecided"),
        ],
        [
            attempt("A?", "other"),
            attempt("And B?", "b", **reworded),
            attempt("C?", "I don't know", "declined", None),
        ],
        [
            attempt("A?", "the other one"),
            attempt("Or B?", "b", "undecided", **reworded),
            attempt("C?", "c"),
        ],
        [attempt("D?", "d", "declined", 0.2)],
    )
    found = rows(selfloop("beliefs", "--flipped", "--json"))
    assert [(f["after"]["round"], f["what"], f["after"]["question"]) for f in found] == [
        (2, "changed", "A?"),
        (2, "found", "And B?"),
        (2, "lost", "C?"),
        (3, "found", "C?"),
    ]
    out = selfloop("beliefs", "--flipped").out
    assert "  another answer  A? — other, before: one  0.80 -> 0.80 (r, round 2)\n" in out
    assert "  no longer held  C? — c  0.80 -> ? (r, round 2)\n" in out
    assert "      asked before: B?\n" in out


def test_a_belief_that_was_lowered_and_is_held_still(work: Path, selfloop: Selfloop) -> None:
    first = attempt("A?", "a", sure=0.95)
    low = Outcome(first.question, "belief", "a", 0.7, 1, None, "contradicted by 'B?': b")
    against = replace(attempt("B?", "b", "undecided", 0.4), lowers=low)
    made(work / "runs/r", [first], [against])
    (row,) = rows(selfloop("beliefs", "--json"))
    assert (row["confidence"], row["round"]) == (0.7, 1), "held since round 1"
    assert rows(selfloop("beliefs", "--flipped", "--json")) == []
    (told,) = rows(selfloop("beliefs", "--history", "A?", "--json"))
    assert [(o["round"], o["confidence"]) for o in told["outcomes"]] == [(1, 0.95), (2, 0.7)]


# --- exports


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_export_plain(library: Path, selfloop: Selfloop) -> None:
    said = selfloop("beliefs", "one", "--declined", "--export", "out.jsonl")
    assert said.out == 'wrote 3 beliefs and 1 "I don\'t know" to out.jsonl\n'
    assert lines(library / "out.jsonl") == rows(selfloop("beliefs", "one", "--declined", "--json"))
    assert list(library.glob("*.part")) == []
    assert selfloop("beliefs", "--merge", "--export", "merged.jsonl").code == 0
    assert {row["runs_agree"] for row in lines(library / "merged.jsonl")} == {1}


def test_export_chat_and_prompt(work: Path, selfloop: Selfloop) -> None:
    made(
        work / "runs/r",
        [attempt("Which river?", "Nile ü\u2028"), attempt("Who?", "x", "declined", 0.1)],
    )
    assert selfloop("beliefs", "--declined", "--export", "c.JSONL", "--form", "chat").code == 0
    text = (work / "c.JSONL").read_text(encoding="utf-8")
    assert text.count("\n") == 2 and "ü" in text
    assert [json.loads(line) for line in text.split("\n")[:2]] == [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in [("Which river?", "Nile ü"), ("Who?", "I don't know")]
    ]
    assert selfloop("beliefs", "--export", "p.jsonl", "--form", "prompt").code == 0
    assert lines(work / "p.jsonl") == [{"prompt": "Which river?", "completion": "Nile ü"}]


@pytest.mark.parametrize("form", ["plain", "chat", "prompt"])
def test_parquet_holds_the_same_rows(form: str, library: Path, selfloop: Selfloop) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for suffix in ("jsonl", "parquet"):
        assert (
            selfloop("beliefs", "--declined", "--export", f"out.{suffix}", "--form", form).code == 0
        )
    assert parquet.read_table(library / "out.parquet").to_pylist() == lines(library / "out.jsonl")


def test_parquet_without_pyarrow(
    library: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = selfloop("beliefs", "--export", "out.parquet")
    assert said.code == 2 and "pip install 'selfloop[parquet]'" in said.err
    assert not (library / "out.parquet").exists()


@pytest.mark.extra("parquet")
def test_a_file_that_could_not_be_written_whole_is_not_left(
    library: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    said = selfloop("beliefs", "--declined", "--export", "out.jsonl")
    advice = "Free some space, or choose another place with --export."
    assert (said.code, said.err) == (
        5,
        f"selfloop: the disk is full: {library / 'out.jsonl'}. {advice}\n",
    )
    assert not list(Path.cwd().glob("out.jsonl*"))
    assert selfloop("beliefs", "--declined", "--export", "out.parquet").code == 5
    assert not list(Path.cwd().glob("out.parquet*"))


def test_what_is_exported_can_be_asked_again(library: Path, selfloop: Selfloop) -> None:
    """`selfloop score` reads the plain form."""
    assert selfloop("beliefs", "one", "--export", "out.jsonl").code == 0
    (library / "s.yaml").write_text(RECIPE)
    said = selfloop("score", "s.yaml", "out.jsonl", "--json")
    assert said.code == 0, said.err
    assert len([line for line in said.out.splitlines() if line.startswith("{")]) == 3


# --- what can go wrong


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--export", "x.csv"], ".jsonl and .parquet"),
        (["--export", "x"], ".jsonl and .parquet"),
        (["--form", "chat"], "--export FILE too"),
        (["--form", "other", "--export", "x.jsonl"], "'other' is not one of"),
        (["--min-confidence", "2"], "not in the range"),
        (["--history", "x", "--flipped"], "do not go together"),
        (["--flipped", "--export", "x.jsonl"], "do not go together"),
        (["--history", "x", "--merge"], "choose beliefs"),
        (["--flipped", "--min-confidence", "0"], "choose beliefs"),
        (["--history", "x", "--search", "y"], "leave --search out"),
        (["--export", "x.jsonl", "--json"], "give one of them"),
    ],
)
def test_what_does_not_go_together(
    args: list[str], message: str, work: Path, selfloop: Selfloop
) -> None:
    said = selfloop("beliefs", *args)
    assert (said.code, said.out) == (2, "") and message in said.err
    assert list(work.glob("x*")) == []


def test_no_runs(work: Path, selfloop: Selfloop) -> None:
    said = selfloop("beliefs")
    assert said.code == 5 and "no run in runs. Make one with `selfloop run RECIPE`" in said.err
    (work / "runs/empty").mkdir(parents=True)
    assert "no run in runs." in selfloop("beliefs").err
    said = selfloop("beliefs", "empty")
    assert said.code == 5 and "no run in runs/empty" in said.err
    assert "no run in runs/nothing" in selfloop("beliefs", "nothing", "--json").err


def test_one_damaged_run_does_not_hide_the_others(library: Path, selfloop: Selfloop) -> None:
    (library / "runs/bad").mkdir()
    (library / "runs/bad/run.sqlite").write_bytes(b"no database " * 500)
    said = selfloop("beliefs")
    assert said.code == 5 and said.out.startswith("5 beliefs in 2 runs\n")
    assert "1 of 3 runs left out:\n" in said.err and "runs/bad/run.sqlite is damaged" in said.err
    said = selfloop("beliefs", "one", "bad")
    assert (said.code, said.out) == (5, "") and "is damaged" in said.err
    for name in ("one", "two"):
        store = Store(library / "runs" / name, write=True)
        store._db.execute("UPDATE attempts SET data = '{half'")
        store.close()
    said = selfloop("beliefs")
    assert (said.code, said.out) == (5, "") and "Traceback" not in said.err
    assert "is damaged: " in selfloop("beliefs", "one").err


def test_what_cannot_be_written(library: Path, selfloop: Selfloop) -> None:
    said = selfloop("beliefs", "--export", "no/such/out.jsonl")
    assert said.code == 5 and "cannot write no/such/out.jsonl" in said.err
    said = selfloop("beliefs", "--search", "nowhere", "--export", "out.jsonl")
    assert (
        said.code == 1 and "no belief to write" in said.err and not (library / "out.jsonl").exists()
    )


def test_runs_of_one_name_are_told_apart(work: Path, selfloop: Selfloop) -> None:
    for folder in ("here", "there"):
        made(work / folder / "r", [attempt("A?", folder)])
    assert [row["run"] for row in rows(selfloop("beliefs", "here/r", "there/r", "--json"))] == [
        "here/r",
        "there/r",
    ]


# --- how it is shown

HOSTILE = {
    "control sequences": "\x1b]0;pwned\x07\x1b[2J\x1b[31mred\x1b[0m\r\x08\x9b1m\x00",
    "a million characters": "x" * 1_000_000,
    "pieces of characters": "caf\ufffd \udc80\ud800 half",
    "text turned around": "\u202eevil\u202c \u2066hidden\u2069",
    "markup and templates": "[bold red]{question} ${x} %s {0} {{draft}}[/]",
    "many lines": "one\ntwo\r\nthree\u2028four",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_text_that_acts_on_a_terminal(text: str, work: Path, selfloop: Selfloop) -> None:
    question, other = f"What {text} is this?", f"Which {text} is this?"
    lowers = Outcome(
        Question(question, text, text),
        "undecided",
        text,
        0.4,
        1,
        None,
        f"contradicted by {other!r}: {text}",
    )
    made(
        work / "runs/r",
        [attempt(question, f"told {text}"), attempt(f"{text} and?", f"told {text}!")],
        [replace(attempt(other, text, "undecided"), lowers=lowers, reason=text)],
        model=text.encode("utf-8", "replace").decode(),
    )
    for args in (
        [],
        ["--json"],
        ["--merge"],
        ["--flipped"],
        ["--flipped", "--json"],
        ["--history", ""],
    ):
        said = selfloop("beliefs", *args)
        assert said.code == 0, said.err
        assert not ACTS.search(said.out + said.err)
        if "--json" not in args:
            assert max(map(len, said.out.splitlines())) <= 200
    assert selfloop("beliefs", "--history", text.encode("utf-8", "replace").decode()[:50]).code == 0
    assert selfloop("beliefs", "--export", "out.jsonl").code == 0
    assert [
        json.loads(one)["answer"]
        for one in (work / "out.jsonl").read_text("utf-8").split("\n")[:-1]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 99, 200])
def test_a_line_fits_the_terminal(columns: int, work: Path) -> None:
    long = "Which of the very many rivers of the whole wide world is it that flows the furthest of "
    long += "all of them?"
    wide = "世界で一番長い川は何ですか" * 9
    made(
        work / "runs/a-run",
        [attempt(long, "the Nile " * 30), attempt(wide, wide), attempt("Short?", "yes")],
    )
    made(work / "runs/b-run", [attempt(long, "no")], [attempt(long, "no", "undecided")])
    from selfloop.text.display import cells

    for args in ([], ["--merge"], ["--flipped"], ["--history", "r"]):
        shown = on_terminal(["beliefs", *args], columns, work)
        assert shown and max(map(cells, shown)) <= columns, max(shown, key=cells)


def on_terminal(args: list[str], columns: int, folder: Path) -> list[str]:
    """Return the lines that the command writes to a terminal so wide."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "selfloop.cli", *args]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=folder, env=env) as process:
        os.close(theirs)
        found = b""
        try:
            while more := os.read(ours, 65536):
                found += more
        except OSError:  # Linux: the other end is closed
            pass
        assert process.wait() == 0, found
    os.close(ours)
    return found.decode().replace("\r\n", "\n").splitlines()


@pytest.mark.slow
def test_ten_thousand_are_quick(work: Path, selfloop: Selfloop) -> None:
    rounds = []
    for r in range(10):
        rounds.append([attempt(f"Which is {n} of {r}?", f"a {n}") for n in range(1000)])
    made(work / "runs/big", *rounds)
    for args in (["--history", "Which is 7 "], ["--merge", "--export", "out.jsonl"]):
        began = time.process_time()
        assert selfloop("beliefs", *args).code == 0
        assert time.process_time() - began < cpu_limit(10)
    assert len((work / "out.jsonl").read_text().splitlines()) == 10_000


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys; import selfloop_plugins.commands.beliefs; "
        "print([m for m in ('numpy', 'pyarrow', 'rich', 'pydantic', 'sqlite3') if m in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stdout + done.stderr
