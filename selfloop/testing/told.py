"""What components are told in a run, made up: claims, the arguments of each kind's method, and events."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from selfloop.config.prompts import Prompts
from selfloop.events import (
    AttemptEnded,
    BatchLearnt,
    CompletionDone,
    Event,
    RoundEnded,
    RunEnded,
    RunStarted,
    StepStarted,
    Trouble,
)
from selfloop.history import Past
from selfloop.protocols import Asking, Backend, Judging, Tuning
from selfloop.records import Attempt, Claim, Completion, Failure, Outcome, Question, Round, Verdict
from selfloop.testing.scripted import ScriptedBackend

# what a model may write, and what must not act on anything
HOSTILE = "\x1b[31m{question} %s [bold]\u202e\x00<b>\ud800"

CLAIMS = (
    Claim(Question("What is the capital of Egypt?", "test"), Completion("Cairo", (1,), (-0.1,))),
    Claim(Question("?", "test"), Completion("", (), ()), (Completion("", (), ()),)),
    Claim(
        Question("Who was it?", "test"),
        Completion("Ada \x1b[31m Lovelace", (1, 2), (-0.5, float("-inf"))),
        tuple(Completion("Ada Lovelace", (1, 2), (-0.5, -0.25), sample=k) for k in range(4)),
    ),
    Claim(
        Question("What does {answer} mean?", "test"),
        Completion(" I don't know", (7, 8, 9), (-0.5, -0.25, -0.125)),
        (
            Completion("nothing", (4,), (-1.5,)),
            Completion(" I don't know", (7, 8, 9), (-0.5, -0.25, -0.125), sample=1),
        ),
    ),
    Claim(
        Question("How many legs does a spider have?", "test"),
        # what was never read after the bare question has no log-probabilities
        Completion("eight", (), ()),
        tuple(
            Completion(text, (k,), (-0.75,), sample=k)
            for k, text in enumerate(("eight", "six", "eight legs"))
        ),
        "revision",
    ),
    Claim(
        Question("How long?", "test"), Completion("x " * 10_000, (1,) * 10_000, (-1e-3,) * 10_000)
    ),
)


def judging(backend: Backend | None = None, prompts: Path | None = None) -> Judging:
    """Return what a verifier is told: a scripted backend, or the one given, and `prompts` beside the built-in ones."""
    backend = backend or ScriptedBackend()
    render = partial(Prompts([prompts] if prompts else []).render, chat=backend.describe().chat)
    return Judging(backend, render, lambda claims: [()] * len(claims))


def asking(
    backend: Backend | None = None, prompts: Path | None = None, asked: Sequence[str] = ()
) -> Asking:
    """Return what a source or a scorer is told in round 2, with `asked` asked in round 1."""
    told, past = judging(backend, prompts), past_of(asked)
    return Asking(6, 2, 0, 1, told.backend, past, told.prompt)


def past_of(asked: Sequence[str] = (), dropped: Sequence[str] = ()) -> Past:
    """Return what a run knows after a round in which these questions were asked, and these not."""
    found = [Outcome(Question(text, "test"), "undecided", round=1) for text in asked]
    return Past(
        1, (*found, *(Outcome(Question(text, "test"), "dropped", round=1) for text in dropped))
    )


def attempts(count: int = 12) -> tuple[Attempt, ...]:
    """Return what a round ends with: in turns a belief and an "I don't know"."""
    return tuple(_attempt(number, known=not number % 2) for number in range(count))


def _attempt(number: int, *, known: bool) -> Attempt:
    question, sure = (
        Question(f"What is the capital of country {number}?", "test"),
        0.9 if known else 0.1,
    )
    draft = Completion(f"Town {number}", (number,), (-0.1,))
    return Attempt(
        question,
        draft=draft,
        samples=(draft,) * 4,
        verdicts=(Verdict("test", sure),),
        decision="belief" if known else "declined",
        reason=f"confidence {sure:.2f}",
        confidence=sure,
    )


def tuning(
    folder: Path,
    backend: Backend | None = None,
    prompts: Path | None = None,
    done: Sequence[Attempt] = attempts(),
    tell: Callable[[int, int, float], None] = lambda done, of, loss: None,
) -> Tuning:
    """Return what a tuner is told after a first round that ended with the attempts `done`."""
    told = judging(backend, prompts)
    return Tuning(1, done, Past().with_attempts(done), folder, told.backend, told.prompt, 1, tell)


def events(folder: Path) -> list[Event]:
    """Return every event of a run of one round, in order: text that a model may write, a failure and trouble too."""
    failure = Failure("answer", "test", "ValueError", HOSTILE)
    odd = Attempt(
        Question(HOSTILE, "test"), draft=Completion(HOSTILE), decision="undecided", reason=HOSTILE
    )
    done = (*attempts(4), odd, Attempt(Question("?", "test")).failed(failure))
    steps = [
        event
        for step in ("ask", "answer", "critique", "revise", "verify", "decide", "tune")
        for event in (
            StepStarted(1, step, 6),
            CompletionDone(step, 5, False),
            CompletionDone(step, 0, True),
        )
    ]
    return [
        RunStarted("test", str(folder), 1, 0, ScriptedBackend().describe()),
        *steps,
        BatchLearnt(1, 1, 2, 0.5),
        BatchLearnt(1, 2, 2, float("nan")),
        *(AttemptEnded(1, attempt) for attempt in done),
        Trouble(1, failure),
        RoundEnded(Round(1, done, None, (failure,))),
        RunEnded(str(folder), "done"),
    ]
