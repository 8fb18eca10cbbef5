"""The source `file` on files that are large, repeat themselves or are broken in places."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import cpu_limit
from selfloop_plugins.sources import file as question_file
from selfloop_plugins.sources.file import QuestionFile

from selfloop.errors import RecipeError
from selfloop.testing import ask_context, history_of


def told(n: int, asked: list[str] | None = None) -> Any:
    from dataclasses import replace

    return replace(ask_context(), n=n, history=history_of(asked or []))


def large(path: Path) -> Path:
    """A file of 100,000 lines: every tenth repeats the one before, every thousandth is broken."""
    lines = []
    for i in range(100_000):
        text = f"Who was number {i - (i % 10 == 1)}?"
        lines.append(
            '{"question": ' if i % 1000 == 999 else json.dumps({"question": text, "answers": ["x"]})
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_large_file_names_the_first_broken_lines_and_their_count(tmp_path: Path) -> None:
    path, start = large(tmp_path / "q.jsonl"), time.process_time()
    with pytest.raises(RecipeError) as refused:
        question_file.check(path=path)
    assert time.process_time() - start < cpu_limit(5)
    *named, more, last = str(refused.value).splitlines()
    assert [line.partition(": each line is")[0] for line in named] == [
        f"{path}, line {i}" for i in range(1000, 6000, 1000)
    ]
    assert (more, last) == (
        "... and 95 more.",
        "Broken: 100 of 100,000 lines. Mend them, or leave them out: skip_broken: true in the "
        "source of a recipe, "
        "--skip-broken for eval and score.",
    )


@pytest.mark.slow
def test_a_large_file_with_skip_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, start = large(tmp_path / "q.jsonl"), time.process_time()
    question_file.check(path=path, skip_broken=True)
    assert capsys.readouterr().err == (
        f"{path}: JSONL, 100,000 rows, 89,900 questions. Columns: question (question), answers "
        "(gold answers)\n"
        "  left out: 100 broken (lines 1000, 2000, 3000, ...)\n"
        "  merged into an earlier row that asks the same, gold answers united: 10,000 (lines 2, "
        "12, 22, ...)\n"
    )
    source = QuestionFile(path=path, skip_broken=True)
    assert time.process_time() - start < cpu_limit(5)
    first = source.ask(told(7))
    assert [q.text for q in first] == [f"Who was number {i}?" for i in (0, 2, 3, 4, 5, 6, 7)]
    all_of_it = source.ask(told(10**9))
    assert len(all_of_it) == len({q.text for q in all_of_it}) == 89_900
    assert source.ask(told(9, [q.text for q in all_of_it])) == []


def test_a_repeated_question_is_given_once_and_the_first_line_counts(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"question": "Q?", "answers": ["a"]}\n{"question": " Q? "}\n{"question": "R?"}\n'
    )
    assert [(q.text, q.gold) for q in QuestionFile(path=path).ask(told(9))] == [
        ("Q?", ("a",)),
        ("R?", ()),
    ]


def test_it_says_what_it_took_unless_it_is_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Q?"}\n{"question": "R?"}\n\n')
    question_file.check(path=path)
    assert capsys.readouterr() == (
        "",
        f"{path}: JSONL, 2 rows, 2 questions. Columns: question (question)\n",
    )
    question_file.check(path=path, quiet=True)
    (tmp_path / "q.txt").write_text("Q?\nR?\n\n")
    question_file.check(path=tmp_path / "q.txt")
    assert capsys.readouterr() == ("", "")


def test_one_broken_line_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "Q?"}\noops\n')
    with pytest.raises(
        RecipeError,
        match=r"line 2: each line is .*\nBroken: 1 of 2 lines\. Mend .*skip_broken: true",
    ):
        QuestionFile(path=tmp_path / "q.jsonl")


@pytest.mark.parametrize("skip", [True, False])
def test_a_file_of_broken_lines_alone_is_refused(skip: bool, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("oops\n" * 7)
    with pytest.raises(
        RecipeError,
        match=r"line 5.*\n\.\.\. and 2 more\.\nBroken: 7 of 7 lines\. Not one is a question",
    ):
        QuestionFile(path=tmp_path / "q.jsonl", skip_broken=skip)


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b'{"question": "\xe9?"}', b"[" * 100_000, b'{"question": 1' + b"0" * 9999]
)
def test_broken_lines_of_every_kind_are_left_out(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question": "Q?"}\n' + line + b"\n")
    source = QuestionFile(path=path, skip_broken=True)
    assert [q.text for q in source.ask(told(9))] == ["Q?"]
    assert [(one.reason, one.first) for one in source.table.left_out] == [("broken", (2,))]
    with pytest.raises(RecipeError):
        QuestionFile(path=path)


def test_a_line_of_text_that_is_not_utf_8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.txt").write_bytes(b"Who?\nWh\xe9?\nWhen?\n")
    with pytest.raises(RecipeError, match="line 2: this is not UTF-8, byte 0xe9"):
        question_file.check(path=tmp_path / "q.txt")
    question_file.check(path=tmp_path / "q.txt", skip_broken=True)
    assert "left out: 1 broken (line 2)" in capsys.readouterr().err
