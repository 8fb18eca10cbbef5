"""`file`: the user's own questions, from a file of any format that `selfloop.data` reads."""

from pathlib import Path
from typing import Any

import click

from selfloop import AskContext, Component, Question, hookimpl
from selfloop.data import Columns, Table, Use, read

from ._writing import not_asked_yet


class QuestionFile:
    """Hands out the questions of `path` in order, each once in a run. A relative `path` is relative
    to the recipe.

    The file is text with a question a line, JSONL, JSON, CSV, TSV, Parquet, one of these as .gz,
    the file of a data set as its authors give it out, or a folder of `datasets`. A row may have
    `answers`, all that count as right, or `answer_regex`, which a right answer must match; and
    `answer`, one that is to be judged in place of the model's own; with `judge` each row must have
    one. A list in `answer` counts as right. `question_column`, `answers_column` and `answer_column`
    name columns that are called otherwise. Of rows with the same question (and `answer`) one is
    asked, with the gold answers of all. A file with broken lines is refused, or with `skip_broken`
    they are left out. With `quiet` nothing is said of the rows.
    """

    def __init__(
        self,
        *,
        path: Path,
        judge: bool = False,
        skip_broken: bool = False,
        question_column: str = "",
        answers_column: str = "",
        answer_column: str = "",
        quiet: bool = False,
    ) -> None:
        columns = Columns(question_column, answers_column, answer_column)
        use: Use = "score" if judge else "ask"
        self.table: Table = read(path, use, columns, skip_broken=skip_broken, source="file")
        self.questions = self.table.questions

    def ask(self, context: AskContext) -> list[Question]:
        """Return the next questions that were not asked yet."""
        return not_asked_yet(self.questions, context)


def check(*, quiet: bool = False, **options: Any) -> None:
    """Raise for a file that cannot be read; say on standard error which rows and columns were
    taken.

    `options` are those of `QuestionFile`.
    """
    table = QuestionFile(**options).table
    if not (quiet or table.is_plain):
        click.echo(table.summary(), err=True)


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    return [
        Component(
            "file", QuestionFile, doc="the user's own questions, in any usual format", check=check
        )
    ]
