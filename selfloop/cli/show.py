"""`selfloop show RUN`"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, get_args

import click
from pydantic_core import to_json

from selfloop.cli.options import as_json, run_argument, run_folder, runs_dir
from selfloop.evaluation.flips import flip
from selfloop.records import Attempt, Completion, Decision, Failure, Round
from selfloop.text.display import printable

if TYPE_CHECKING:
    from selfloop.evaluation.round_figures import RoundFigures

DECISIONS: tuple[Decision, ...] = get_args(Decision)
MAX_VALUE = 160  # cells of a value in the history of a question

Picked = Sequence[tuple[Round, Sequence[Attempt]]]


@click.command("show")
@run_argument
@click.option(
    "--only",
    type=click.Choice(DECISIONS),
    multiple=True,
    help="Show only attempts with this decision.",
)
@click.option(
    "--question", metavar="TEXT", help="Show the whole history of the questions that contain TEXT."
)
@click.option("--failures", is_flag=True, help="List failures and the component responsible.")
@runs_dir
@as_json
def command(
    run: str, only: tuple[str, ...], question: str | None, failures: bool, runs: Path, as_json: bool
) -> None:
    """Show RUN (a folder, or a name in --runs): the beliefs and declined questions of each round.

    Each line has the confidence, the decision, the question and the answer. A run that tunes also
    has, for each round, the entropy of its labels, how often base and tuned model draft the same
    answer, and the held-out figures of a new adapter.

    \b
    Examples:
      selfloop show quickstart --only declined
      selfloop show runs/quickstart --question capital
    """
    from selfloop.storage.store import Store, declining_as_in

    folder = run_folder(run, runs)
    store = Store(folder, write=False)
    try:
        rounds, pinned, sessions = list(store.rounds()), store.meta(), store.sessions()
        before = store.round_failures(0)  # before the first round had ended
    finally:
        store.close()
    # Rounds without a picked attempt stay: their counts are printed.
    picked = [(ended, _picked(ended, only, question)) for ended in rounds]
    if as_json:
        records = {
            "pinned": pinned,
            "sessions": sessions,
            "rounds": [asdict(figures) for figures in _round_figures(folder, rounds)],
            "attempts": list(_plain_attempts(picked)),
        }
        click.echo(to_json(records, indent=2, inf_nan_mode="null").decode())
    elif failures:
        _print_failures(before, rounds)
    elif not rounds:
        resume = printable(f"selfloop resume {quote(str(folder))}")
        click.echo(f"no round has ended yet; if the run was stopped, go on with: {resume}")
    elif question is not None:
        if not any(attempts for _, attempts in picked):
            click.echo(f"none of these questions contains {printable(question, 60)!r}")
        # Whether a revision changed an answer depends on the run's own patterns for declining.
        with declining_as_in(folder):
            for ended, attempts in picked:
                for attempt in attempts:
                    _print_history(ended, attempt)
    else:
        _print_rounds(picked, only, _round_figures(folder, rounds))


def _picked(ended: Round, only: Sequence[str], question: str | None) -> list[Attempt]:
    """Return the attempts of a round with one of these decisions, and this text in the question."""
    attempts = list(ended.attempts)
    if only:
        attempts = [attempt for attempt in attempts if attempt.decision in only]
    if question is not None:
        text = question.lower()
        attempts = [attempt for attempt in attempts if text in attempt.question.text.lower()]
    return attempts


def _plain_attempts(picked: Picked) -> Iterator[dict[str, Any]]:
    for ended, attempts in picked:
        for attempt in attempts:
            yield {"round": ended.number, **asdict(attempt)}


def _print_rounds(
    picked: Picked, only: Sequence[str], all_figures: "Sequence[RoundFigures]"
) -> None:
    # Without an adapter nothing can collapse.
    is_tuned = any(figures.is_tuned for figures in all_figures)
    for (ended, attempts), figures in zip(picked, all_figures, strict=True):
        counts = [f"{ended.count(decision)} {decision}" for decision in DECISIONS]
        click.echo(f"round {ended.number}: {', '.join(counts)}")
        if is_tuned:
            click.echo(f"  {_figures_line(figures)}")
        for attempt in attempts:
            # Dropped questions are many, and were never asked.
            if attempt.decision != "dropped" or "dropped" in only:
                _print_attempt(attempt)


def _round_figures(folder: Path, rounds: Sequence[Round]) -> "Sequence[RoundFigures]":
    # here, so that completing a command line does not load it
    from selfloop.registry import builtin

    figures: Sequence[RoundFigures] = builtin.library().round_figures(folder, rounds)
    return figures


def _figures_line(figures: "RoundFigures") -> str:
    pieces = []
    if figures.label_entropy is not None:
        pieces.append(f"label entropy {figures.label_entropy:.2f} bits")
    if figures.agreement is not None:
        pieces.append(f"base and tuned model agree on {figures.agreement:.0%}")
    if figures.kept is not None and figures.declined is not None:
        pieces.append(
            f"the new adapter keeps {figures.kept:.0%} of the right held-out answers and declines "
            f"{figures.declined:.0%} of the wrong ones"
        )
    return "; ".join(pieces) or "no figures"


def _print_attempt(attempt: Attempt) -> None:
    confidence = "    " if attempt.confidence is None else f"{attempt.confidence:.2f}"
    question = printable(attempt.question.text, 100)
    # A dropped question was never answered.
    answer = f" — {printable(attempt.answer, 60)}" if attempt.draft else ""
    reason = "" if attempt.decision == "belief" else f"  ({printable(attempt.reason, 60)})"
    click.echo(f"  {confidence} {attempt.decision or '':9} {question}{answer}{reason}")


def _print_failures(before: Sequence[Failure], rounds: Sequence[Round]) -> None:
    """Print the failures before the first round, those of rounds, and those of single questions."""
    lines = [_failure_line(0, failure) for failure in before]
    for ended in rounds:
        lines += [_failure_line(ended.number, failure) for failure in ended.failures]
    for ended in rounds:
        for attempt in ended.attempts:
            question = printable(attempt.question.text, 60)
            for failure in attempt.failures:
                lines.append(_failure_line(ended.number, failure, question))
    for line in lines or ["nothing failed"]:
        click.echo(line)


def _failure_line(number: int, failure: Failure, question: str = "") -> str:
    cause = f"{failure.type}: {printable(failure.message, 200)}"
    return f"round {number} {failure.step} {failure.component}: {cause}  {question}".rstrip()


def _print_history(ended: Round, attempt: Attempt) -> None:
    click.echo(f"round {ended.number}")
    for name, value in _history(attempt):
        click.echo(f"  {name:28} {printable(value, MAX_VALUE)}")


def _history(attempt: Attempt) -> Iterator[tuple[str, str]]:
    """Yield everything that is stored of an attempt, as names and values, in the order of steps."""
    question = attempt.question
    yield "question", f"{question.text} (from {question.source})"
    for name, value in question.other_columns.items():
        if value is not None:
            yield f"column {printable(name, 20)}", str(value)
    for score in attempt.scores:
        yield f"score {score.scorer}", f"{score.value:.2f} {score.reason}"
    completions = [("draft", attempt.draft)]
    completions += [("sample", sample) for sample in attempt.samples]
    completions += [("critique", attempt.critique), ("revision", attempt.revision)]
    for name, completion in completions:
        if completion is not None:
            yield name, _completion(completion)
    change = flip(attempt)
    if change:
        yield "flip", change
    for verdict in attempt.verdicts:
        # An abstention says why, too: its reason follows.
        confidence = "abstains" if verdict.confidence is None else f"{verdict.confidence:.2f}"
        yield f"{verdict.detector} on {verdict.candidate}", f"{confidence} {verdict.reason}"
    for failure in attempt.failures:
        yield "failure", f"{failure.step} {failure.component}: {failure.type}: {failure.message}"
    answer = attempt.answer or "(no answer)"
    yield str(attempt.decision), f"{answer} ({attempt.chosen}; {attempt.reason})"


def _completion(completion: Completion) -> str:
    logprob = f"log-probability {sum(completion.logprobs):.2f}"
    return f"{completion.text.strip()!r} ({logprob}, {completion.finish})"
