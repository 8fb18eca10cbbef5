"""`dataset`: questions with all their accepted answers, from a file or from the usual closed-book
data sets.
"""

from pathlib import Path
from typing import Annotated, Any

import click
from annotated_types import Ge

from selfloop import AskContext, Component, Question, hookimpl
from selfloop.data import Columns, Table, read, read_hub
from selfloop.data.hub import SETS, known
from selfloop.errors import RecipeError

from ._writing import not_asked_yet


class Dataset:
    """Hands out the questions of a data set in order, each once in a run. The model answers,
    whatever the rows hold.

    `name` is nq_open, trivia_qa, web_questions, popqa or simpleqa. With `path` its rows come from a
    file of any format that the source `file` reads; a folder of `datasets` with several splits
    needs `split`. Without `path` they come from the hub, of `split` (default: the one with answers
    that is usually measured on). Rows without a gold answer are left out. Where there are no
    `answers`, `answer` is the gold answer; `question_column` and `answers_column` name columns that
    are called otherwise. `limit` takes that many at random, by `seed`. A file with broken lines is
    refused, or with `skip_broken` they are left out.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        path: Path | None = None,
        split: str = "",
        limit: Annotated[int, Ge(1)] | None = None,
        seed: int = 0,
        question_column: str = "",
        answers_column: str = "",
        skip_broken: bool = False,
    ) -> None:
        check_name(name, path)
        table: Table
        if path is not None:
            columns = Columns(question_column, answers_column)
            table = read(
                path, "eval", columns, split=split, skip_broken=skip_broken, source=name or ""
            )
        else:
            assert name is not None  # `check_name` has seen to it
            table = read_hub(name, split)
        self.table = table.sampled(limit, seed)

    def ask(self, context: AskContext) -> list[Question]:
        """Return the next questions that were not asked yet."""
        return not_asked_yet(self.table.questions, context)


def check_name(name: str | None, path: Path | None) -> None:
    """Raise for a data set that nobody knows, and where none is named."""
    if name is None and path is None:
        raise RecipeError(
            f"ask.sources: a dataset needs a `name` ({', '.join(SETS)}) or the `path` of a file."
        )
    if name is not None:
        known(name)


def check(*, name: str | None = None, path: Path | None = None, **options: Any) -> None:
    """Raise for an unknown name or a file that cannot be read; say which rows were taken.

    The hub is not asked yet.
    """
    check_name(name, path)
    if path is not None:
        click.echo(Dataset(name=name, path=path, **options).table.summary(), err=True)


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    return [
        Component(
            "dataset",
            Dataset,
            doc="questions with gold answers, from a file or the hub",
            check=check,
        )
    ]
