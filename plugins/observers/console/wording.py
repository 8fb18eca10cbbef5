"""Events and counts as short texts, for lines and for the picture.

A model's and a user's texts pass `printable` here: they can neither move the cursor nor colour.
"""

from collections import Counter

from selfloop.events import ComponentFailed, RoundEnded, RunEnded, RunStarted
from selfloop.records import Attempt, Decision
from selfloop.text.display import cells, printable
from selfloop.text.units import duration, parameters, plural

from .._run_progress import RunProgress, StepProgress

# The order is that of every line of counts, so that lines can be compared by eye.
DECISIONS: tuple[Decision, ...] = ("belief", "declined", "undecided", "dropped", "failed")
VERDICT_CELLS = 17  # of a confidence and a decision
MAX_MESSAGE_CELLS = 300  # of a failure's message
QUESTION_CELLS, ANSWER_CELLS = 80, 60  # of a line that shows both


def heading(event: RunStarted) -> str:
    """Return the run's name, model and folder."""
    model = event.model
    facts = ", ".join(filter(None, (model.architecture, parameters(model.parameters))))
    about = f"{model.name} ({facts})" if facts else model.name
    done = f" · {event.done} of {plural(event.rounds, 'round')} done" if event.done else ""
    return printable(f"run {event.name} · {about} · {event.folder}{done}")


def step_line(step: StepProgress) -> str:
    """Return the line about an ended step."""
    pieces = [duration(step.seconds)]
    if step.completions:
        completions = plural(step.completions, "completion")
        pieces.append(f"{completions} · {step.tokens:,} tokens · {step.rate:,.0f} tok/s")
    if step.replayed:
        pieces.append(f"{step.replayed:,} replayed")
    if step.last_batch:
        batches = f"{step.last_batch.done:,} of {plural(step.last_batch.of, 'batch')}"
        pieces += filter(None, (batches, f"loss {step.loss:.3f}", time_left(step)))
    return f"{step.name} ended: {' · '.join(pieces)}"


def time_left(step: StepProgress) -> str:
    """Return the time that a step still takes; empty if the step ended, or if it is unknown."""
    seconds = step.seconds_left
    return "" if step.ended is not None or seconds is None else f"{duration(seconds)} left"


def round_line(event: RoundEnded, progress: RunProgress) -> str:
    """Return the decisions of an ended round, and how long it took."""
    counts = Counter(a.decision for a in event.round.attempts if a.decision)
    pieces = [
        *decision_counts(counts).values(),
        duration(progress.clock() - progress.round_started),
    ]
    return f"round {event.round.number}/{progress.run.rounds} ended: {' · '.join(pieces)}"


def run_line(event: RunEnded, progress: RunProgress) -> str:
    """Return how the run ended. The command line prints the message of its failure."""
    return f"run {event.outcome} · {duration(progress.clock() - progress.started)}"


def attempt_line(attempt: Attempt) -> str:
    """Return an attempt on one line."""
    question = short(attempt.question.text, QUESTION_CELLS)
    return f"{verdict(attempt)}{question} -> {answer(attempt, ANSWER_CELLS)}"


def trouble_line(event: ComponentFailed) -> str:
    """Return which component failed, and how."""
    failure = event.failure
    component = printable(f"{failure.step}: {failure.component}")
    message = short(failure.message, MAX_MESSAGE_CELLS)
    return f"trouble in {component}: {printable(failure.type)}: {message}"


def answer(attempt: Attempt, width: int) -> str:
    """Return the answer; of a failed attempt, why it failed."""
    return short(attempt.reason if attempt.decision == "failed" else attempt.answer, width)


def short(text: str, width: int) -> str:
    """Return a text of at most `width` cells."""
    return printable(text, width) or "(empty)"


def padded(text: str, width: int) -> str:
    """Return a text of exactly `width` cells, with a gap of two at its end."""
    cut = short(text, width - 2)
    return cut + " " * (width - cells(cut))


def verdict(attempt: Attempt) -> str:
    """Return confidence and decision in a column of `VERDICT_CELLS`."""
    confidence = "–" if attempt.confidence is None else f"{attempt.confidence:.2f}"
    return f"{confidence:>4}  {attempt.decision or 'undecided':<11}"


def decision_counts(counts: Counter[Decision]) -> dict[Decision, str]:
    """Return each decision with its count."""
    names: dict[Decision, str] = {decision: decision for decision in DECISIONS}
    if counts["belief"] != 1:
        names["belief"] = "beliefs"  # the only one of them that is a noun
    return {decision: f"{counts[decision]:,} {name}" for decision, name in names.items()}
