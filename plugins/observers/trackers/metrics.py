"""A run's events -> figures over its rounds. This is the one place where figures are named.

A step's time and speed stand at its round. A tune's loss stands at its batch: each tune begins
anew, and has its own curve.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

from selfloop_plugins._shared.gate_report import read_gate

from selfloop.evaluation.round_figures import label_entropy
from selfloop.events import Event, RoundEnded, StepStarted, TrainingStep
from selfloop.records import Decision, Round
from selfloop.storage.run_folder import RunFolder

from .._run_progress import RunProgress, StepProgress


class Figure(NamedTuple):
    """A number, and the round or batch it stands at."""

    name: str
    value: float
    step: int


class RunMetrics:
    """Turns the events of the run in `folder` into figures."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._progress = folder, RunProgress(questions=0)

    def figures_of(self, event: Event) -> Iterator[Figure]:
        """Yield the figures of an event; most events have none."""
        step = self._progress.step
        if step and isinstance(event, StepStarted | RoundEnded):
            self._progress.end_step()
            yield from _step_figures(step, self._progress.round)
        self._progress.count(event)
        if isinstance(event, TrainingStep):
            yield Figure(f"tune/round-{event.round:03d}/loss", event.loss, event.done)
        elif isinstance(event, RoundEnded):
            yield from _round_figures(event.round)
            yield from self._gate_figures(event.round)

    def _gate_figures(self, ended: Round) -> Iterator[Figure]:
        """Yield the gate's figures in this round, also of an adapter that it refused."""
        # a refused adapter is not in the round's record, but its report lies where it was made
        place = ended.adapter and Path(ended.adapter.path).parent
        report = read_gate(
            self._folder / place if place else RunFolder(self._folder).adapter(ended.number)
        )
        if not report:
            return
        for model, measures in (("base", report.base), ("tuned", report.tuned)):
            for name, value in measures.items():
                yield Figure(f"gate/{model}/{name.replace(' ', '_')}", value, ended.number)
        yield Figure("gate/taken", float(not report.refusal), ended.number)


def _step_figures(step: StepProgress, number: int) -> Iterator[Figure]:
    """Yield how long a step of round `number` took, and how fast it was."""
    if step.replayed and not step.completions:
        return  # a replay takes no time: it says nothing of either
    yield Figure(f"seconds/{step.name}", step.seconds, number)
    if step.tokens:
        yield Figure(f"tokens_per_second/{step.name}", step.rate, number)


def _round_figures(ended: Round) -> Iterator[Figure]:
    """Yield the counts of decisions, the share that was declined, and the mean confidence."""
    counts = {decision: ended.count(decision) for decision in get_args(Decision)}
    for decision, count in counts.items():
        yield Figure(f"round/{decision}", float(count), ended.number)
    answered = counts["belief"] + counts["declined"] + counts["undecided"]
    if answered:
        yield Figure("round/share_declined", counts["declined"] / answered, ended.number)
    confidences = [a.confidence for a in ended.attempts if a.confidence is not None]
    if confidences:
        mean = sum(confidences) / len(confidences)
        yield Figure("round/mean_confidence", mean, ended.number)
    # signs that a run of several rounds collapses
    for name, value in (("label_entropy", label_entropy(ended)), ("agreement", ended.agreement)):
        if value is not None:
            yield Figure(f"round/{name}", value, ended.number)
