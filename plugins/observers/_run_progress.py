"""Where a run is, by its events: the steps of the round at work, counts of decisions, time left.

The console shows it, the trackers write it down.
"""

from collections import Counter
from dataclasses import dataclass, field
from time import monotonic

from selfloop import progress
from selfloop.events import (
    AttemptEnded,
    CompletionDone,
    ComponentFailed,
    Event,
    RoundEnded,
    RunEnded,
    RunStarted,
    StepStarted,
    TrainingStep,
)
from selfloop.records import Attempt, Decision, ModelInfo

# Before this share of a step is done, an estimate of the rest is worth nothing.
MIN_SHARE = 0.05
# of a new batch in the running mean of the loss: it covers about the last ten batches
LOSS_WEIGHT = 0.1


@dataclass
class StepProgress:
    """One step of the round at work: its attempts, and its completions or training steps so far."""

    name: str
    attempts: int
    # completions for each attempt in the round before; 0: not known
    usual: float = 0.0
    clock: progress.Clock = monotonic
    started: float = field(init=False)
    ended: float | None = None
    completions: int = 0
    replayed: int = 0
    tokens: int = 0
    # of a tune: the last batch, the running mean of the loss, and the first batch since the tune
    # began or went on, with the time when it was learnt
    last_batch: TrainingStep | None = None
    loss: float = 0.0
    first_batch: tuple[int, float] = (0, 0.0)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def seconds(self) -> float:
        """Return how long the step took, or takes so far."""
        return (self.clock() if self.ended is None else self.ended) - self.started

    @property
    def rate(self) -> float:
        """Return generated tokens a second; replayed completions take no time and do not count."""
        return self.tokens / max(self.seconds, 1e-3)

    @property
    def share(self) -> float | None:
        """Return how much of the step is done, in [0, 1]; None if it is unknown."""
        if self.ended is not None:
            return 1.0
        if self.last_batch:
            return self.last_batch.done / max(self.last_batch.of, 1)
        done = self.completions + self.replayed
        expected = self.attempts * (self.usual or 1.0)
        # more than expected: the estimate was wrong, and no better one is at hand
        return done / expected if 0 < done < expected else None

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds that the step still takes at its present speed; None if unknown."""
        if self.last_batch is None:
            share = self.share
            if not share or share <= MIN_SHARE:
                return None
            return self.seconds / share - self.seconds
        # A tune that was resumed begins at a later batch: its speed counts from there.
        first, learnt_at = self.first_batch
        done, total = self.last_batch.done, self.last_batch.of
        if not first < done < total:
            return None
        seconds_a_batch = (self.clock() - learnt_at) / (done - first)
        return seconds_a_batch * (total - done)

    def add_batch(self, batch: TrainingStep) -> None:
        """Note that a batch was learnt."""
        if self.last_batch is None:
            self.loss = batch.loss
            self.first_batch = (batch.done, self.clock())
        else:
            self.loss = (1 - LOSS_WEIGHT) * self.loss + LOSS_WEIGHT * batch.loss
        self.last_batch = batch


class RunProgress:
    """Counts the events of a run. The last `questions` attempts are kept, to be shown."""

    def __init__(self, questions: int, clock: progress.Clock = monotonic) -> None:
        self.questions, self.clock = questions, clock
        self.run = RunStarted("", "", 0, 0, ModelInfo(""))
        self.round = 0
        self.started = self.round_started = clock()
        self.steps: list[StepProgress] = []
        self.counts: Counter[Decision] = Counter()  # of this round
        self.total: Counter[Decision] = Counter()  # of all rounds since the run started or went on
        self.last_attempts: tuple[Attempt, ...] = ()
        self._usual: dict[str, float] = {}
        self._round_seconds: float | None = None  # of the last round that ended

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds that the run still takes, if rounds take as long as the last one.

        None before a round has ended.
        """
        if self._round_seconds is None:
            return None
        this_round = self._round_seconds - (self.clock() - self.round_started)
        rounds_to_come = self.run.rounds - self.round
        return max(0.0, this_round) + rounds_to_come * self._round_seconds

    @property
    def step(self) -> StepProgress | None:
        """Return the step at work."""
        return self.steps[-1] if self.steps and self.steps[-1].ended is None else None

    def count(self, event: Event) -> None:
        """Count one event."""
        match event:
            case CompletionDone():
                self._take_completion(event)
            case TrainingStep():
                if self.step:
                    self.step.add_batch(event)
            case AttemptEnded(attempt=attempt):
                self._take_attempt(attempt)
            case StepStarted():
                self.end_step()
                self._take_step(event)
            case RunStarted():
                self.run = event
            case RoundEnded():
                self.end_step()
                self._round_seconds = self.clock() - self.round_started
            case RunEnded():
                self.end_step()
            case ComponentFailed():
                pass

    def end_step(self) -> None:
        """Stop the clock of the step at work; no event says by itself that a step ended."""
        step = self.step
        if step:
            step.ended = self.clock()
            self._usual[step.name] = (step.completions + step.replayed) / max(step.attempts, 1)

    def _take_step(self, event: StepStarted) -> None:
        if event.round != self.round:
            self.round, self.round_started = event.round, self.clock()
            self.steps, self.counts = [], Counter()
        usual = self._usual.get(event.step, 0.0)
        self.steps.append(StepProgress(event.step, event.attempts, usual, self.clock))

    def _take_completion(self, event: CompletionDone) -> None:
        step = self.step
        if step is None:
            return
        if event.replayed:
            step.replayed += 1
        else:
            step.completions += 1
            step.tokens += event.tokens

    def _take_attempt(self, attempt: Attempt) -> None:
        if attempt.decision is None:
            return
        self.counts[attempt.decision] += 1
        self.total[attempt.decision] += 1
        # the dropped ones would push out all others
        if attempt.decision != "dropped" and self.questions > 0:
            self.last_attempts = (*self.last_attempts, attempt)[-self.questions :]
