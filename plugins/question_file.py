"""`file`: the user's own questions, from a text file (one a line) or JSONL (`question`, and `answers` if known)."""

import json
from pathlib import Path

from selfloop import Asking, Component, Question, hookimpl
from selfloop.errors import RecipeError


class QuestionFile:
    """Hands out the questions of `path` in order, each once in a run. A relative `path` is relative to the recipe."""

    def __init__(self, *, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
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
        return Question(str(row["question"]).strip(), "file", str(row.get("topic", "")), tuple(row.get("answers", ())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            f'{path}, line {number}: each line is {{"question": "...", "answers": ["..."]}}: {error!r}.'
        ) from error


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    return [Component("file", QuestionFile, doc="the user's own questions, text or JSONL")]
