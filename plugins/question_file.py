"""`file`: the user's own questions, from a text file (one a line) or JSONL (`question`, and what counts as right)."""

import json
import re
from itertools import islice
from pathlib import Path

import click

from selfloop import Asking, Component, Question, hookimpl
from selfloop.answers.bounded import checked
from selfloop.errors import RecipeError

SHOWN = 5  # broken lines that a message names


class QuestionFile:
    """Hands out the questions of `path` in order, each once in a run. A relative `path` is relative to the recipe.

    A line of JSONL may have `answers`, all that count as right, or `answer_regex`, which a right answer must match; and
    `answer`, one that is to be judged in place of the model's own. Of lines with the same question (and
    `answer`) the first counts. A
    file with broken lines is refused, or with `skip_broken` they are left out.
    """

    def __init__(self, *, path: Path, skip_broken: bool = False) -> None:
        rows, self.broken = _read(path, skip_broken), list[str]()
        found: dict[tuple[str, str], Question] = {}
        self.lines = 0
        for number, row in rows:
            self.lines += 1
            try:
                question = _question(row, path, number)
            except RecipeError as error:
                self.broken.append(str(error))
            else:
                found.setdefault((question.text, question.answer), question)
        self.repeats = self.lines - len(self.broken) - len(found)
        self.questions = list(found.values())
        if self.broken and not (skip_broken and found):
            raise RecipeError(_refusal(self.broken, self.lines))

    def ask(self, asking: Asking) -> list[Question]:
        """Return the next questions that were not asked yet."""
        had = {*asking.past.questions, *asking.past.dropped}
        return list(islice((question for question in self.questions if question.text not in had), asking.n))


def _read(path: Path, skip_broken: bool) -> list[tuple[int, str]]:
    """Return the lines that are not empty, numbered from 1. A byte that is no UTF-8 breaks its line, or the file."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape" if skip_broken else "strict")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the question file {path}: {error}. Give UTF-8 text, or JSONL.") from error
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _question(line: str, path: Path, number: int) -> Question:
    if not line.isascii() and re.search("[\udc80-\udcff]", line):
        raise RecipeError(f"{path}, line {number}: not UTF-8.")
    if path.suffix != ".jsonl":
        return Question(line.strip(), "file")
    try:
        row = json.loads(line)
        text, topic, gold = row["question"], row.get("topic", ""), row.get("answers", [])
        pattern, answer = row.get("answer_regex", ""), row.get("answer", "")
        if not (isinstance(text, str) and text.strip() and isinstance(topic, str) and isinstance(gold, list)):
            raise ValueError("a question is text, and answers are a list")
        if not all(isinstance(answer, str) for answer in gold):
            raise ValueError("each answer is text")
        if not (isinstance(pattern, str) and isinstance(answer, str)):
            raise ValueError("answer_regex and answer are text")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        form = '{"question": "...", "answers": ["..."]}'
        raise RecipeError(f"{path}, line {number}: each line is {form}: {error!r:.200}.") from error
    try:
        checked(pattern)
    except ValueError as error:
        raise RecipeError(f"{path}, line {number}: answer_regex {error}.") from error
    return Question(text.strip(), "file", topic, tuple(gold), pattern, answer.strip())


def _refusal(broken: list[str], lines: int) -> str:
    """Return the first broken lines, and how many there are."""
    advice = (
        "Mend them, or set skip_broken: true to leave them out." if len(broken) < lines else "Not one is a question."
    )
    more = [f"... and {len(broken) - SHOWN:,} more."] if len(broken) > SHOWN else []
    return "\n".join([*broken[:SHOWN], *more, f"Broken: {len(broken):,} of {lines:,} lines. {advice}"])


def check(*, path: Path, skip_broken: bool = False) -> None:
    """Raise for a file that cannot be read, or lines that are no question; say on stderr what is left out."""
    file = QuestionFile(path=path, skip_broken=skip_broken)
    left = [f"{file.repeats:,} repeated" if file.repeats else "", f"{len(file.broken):,} broken" if file.broken else ""]
    if any(left):
        kept = file.lines - file.repeats - len(file.broken)
        where = [f"line {match[1]}" for one in file.broken[:SHOWN] if (match := re.search(r", line (\d+):", one))]
        first = f" (the first: {', '.join(where)})" if where else ""
        click.echo(f"{path}: {kept:,} questions; left out: {', '.join(filter(None, left))}{first}.", err=True)


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    return [Component("file", QuestionFile, doc="the user's own questions, text or JSONL", check=check)]
