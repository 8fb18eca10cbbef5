"""`file`: the user's own questions, from a text file (one a line) or JSONL (`question`, and what counts as right)."""

import json
import re
from pathlib import Path

from selfloop import Asking, Component, Question, hookimpl
from selfloop.errors import RecipeError


class QuestionFile:
    """Hands out the questions of `path` in order, each once in a run. A relative `path` is relative to the recipe.

    A line of JSONL may have `answers`, all that count as right, or `answer_regex`, which a right answer must match; and
    `answer`, one that is to be judged in place of the model's own.
    """

    def __init__(self, *, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"ask.sources: cannot read the question file {path}: {error}.") from error
        self._questions = [_question(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]

    def ask(self, asking: Asking) -> list[Question]:
        """Return the next questions that were not asked yet."""
        had = {*asking.past.questions, *asking.past.dropped}
        return [question for question in self._questions if question.text not in had][: asking.n]


def _question(line: str, path: Path, number: int) -> Question:
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
        re.compile(pattern)
    except re.error as error:
        raise RecipeError(f"{path}, line {number}: answer_regex is no regular expression: {error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        form = '{"question": "...", "answers": ["..."]}'
        raise RecipeError(f"{path}, line {number}: each line is {form}: {error!r}.") from error
    return Question(text.strip(), "file", topic, tuple(gold), pattern, answer.strip())


def check(*, path: Path) -> None:
    """Raise for a file that cannot be read, or a line that is no question."""
    QuestionFile(path=path)


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    return [Component("file", QuestionFile, doc="the user's own questions, text or JSONL", check=check)]
