"""`selfloop.compare`, `selfloop.export` and `selfloop.dataset`.

Built-in plugins implement them, since they need a report or a model's weights. They are called by
name through the table of built-ins: nothing in `selfloop` imports `selfloop_plugins`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from selfloop.api.runs import Row, RunLike, folder_of, html_table
from selfloop.contradictions import agree
from selfloop.records import Decision
from selfloop.registry import builtin

# Rows for people and tables, for supervised fine-tuning, and for preference tuning.
Form = Literal["qa", "sft", "preference"]
# The LoRA alone, one GGUF file, a folder of transformers, a folder for ollama.
Target = Literal["adapter", "gguf", "hf", "ollama"]
MAX_QUESTIONS = 10  # in a notebook's view


@dataclass(frozen=True)
class RunAnswer:
    """A run's answer to a question; `decision` is empty where the run did not ask it."""

    decision: str = ""
    answer: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class SharedQuestion:
    """A question that several runs asked, with the answer of each run, in their order."""

    question: str
    answers: tuple[RunAnswer, ...]

    @property
    def differs(self) -> bool:
        """Return whether some runs believe an answer and others do not, or another one."""
        asked = [answer for answer in self.answers if answer.decision]
        beliefs = [answer.answer for answer in asked if answer.decision == "belief"]
        if not beliefs:
            return False
        if len(beliefs) < len(asked):
            return True
        return any(not agree(beliefs[0], other) for other in beliefs[1:])


@dataclass(frozen=True)
class RunComparison:
    """Runs side by side: their figures, and the questions that more than one of them asked.

    `figures` maps the name of a figure to a text for each run. Questions on which runs differ come
    first.
    """

    names: tuple[str, ...]
    figures: dict[str, tuple[str, ...]] = field(repr=False)
    questions: tuple[SharedQuestion, ...] = field(repr=False)

    @property
    def differing(self) -> tuple[SharedQuestion, ...]:
        """The questions on which the runs differ."""
        return tuple(question for question in self.questions if question.differs)

    def _repr_html_(self) -> str:
        """Return the comparison as tables for a notebook. Text of a model is escaped."""
        figures = [(name, *values) for name, values in self.figures.items()]
        questions = []
        for shared in self.differing[:MAX_QUESTIONS]:
            answers = [f"{answer.decision} {answer.answer}" for answer in shared.answers]
            questions.append((shared.question, *answers))
        tables = html_table(("", *self.names), figures)
        return tables + html_table(("question", *self.names), questions)


def compare(*runs: RunLike) -> RunComparison:
    """Compare two or more runs. Raises StoreError for a folder that is not a run."""
    if len(runs) < 2:
        raise TypeError("compare takes two runs or more")
    # The figures are those of the reports, so the plugin of reports makes them.
    comparison: RunComparison = builtin.library().compare([folder_of(run) for run in runs])
    return comparison


@dataclass(frozen=True)
class Export:
    """An exported model: a file or a folder, and the round whose adapter is in it.

    `check` has the rates with which it keeps and declines answers to held-out questions, beside
    those of base and adapter; or the `reason` why it was not measured.
    """

    path: Path
    to: Target
    round: int
    check: Mapping[str, Any]


def export(
    run: RunLike,
    to: Target,
    out: Path | str | None = None,
    *,
    weights: str | None = None,
    round: int | None = None,
    force: bool = False,
    questions: int | None = None,
) -> Export:
    """Write the tuned model of a run, to be used without selfloop.

    `to` is "adapter" (the LoRA alone), "gguf" (one file with base and adapter), "hf" (the same as
    a folder of transformers) or "ollama" (a folder with that GGUF and a Modelfile; base and adapter
    apart, where the base is packed in four bits and `weights` is not given). `out` is RUN-TO in the
    working directory by default. `weights` is the format of a GGUF's weights, by default the
    base's. `round` takes that round's adapter instead of the active one. At most so many held-out
    `questions` (by default 100) are asked of the written file, in llama-cpp-python alone; 0 writes
    it unmeasured.
    `force` replaces an earlier export, and writes a file that answers otherwise than the run's
    model.

    Raises ModelError for a run without such an adapter and for such a file, StoreError for the
    disk.
    """
    path = None if out is None else Path(out)
    written, made_in, check = builtin.library().export(
        folder_of(run),
        to,
        path,
        weights=weights,
        round=round,
        force=force,
        questions=questions,
    )
    return Export(written, to, made_in, check)


def dataset(
    run: RunLike, form: Form = "qa", *, only: Collection[Decision] = (), chat: bool = False
) -> list[Row]:
    """Return the results of a run as rows of a data set, a row a question.

    `qa` has all columns of `Run.rows`. `sft` has `prompt` and `completion`: a belief's answer, or
    "I don't know" where the question was declined. `preference` has `prompt`, `chosen` and
    `rejected`: the answer above "I don't know" for a belief, and the other way round where it was
    declined; a question that the model declined by itself gives no pair. With `chat` each column
    is a list of messages. `only` are the decisions that are wanted. `selfloop dataset` writes such
    rows into files, with a card.

    Raises StoreError for a folder that is not a run.
    """
    rows: list[dict[str, Any]] = builtin.library().dataset(
        folder_of(run), form, only=only, chat=chat
    )
    return rows
