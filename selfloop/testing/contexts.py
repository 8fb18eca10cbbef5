"""The contexts, claims, attempts and events of a run, made up for tests: always the same."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from selfloop.config.prompts import Prompts
from selfloop.events import (
    AttemptEnded,
    CompletionDone,
    ComponentFailed,
    Event,
    RoundEnded,
    RunEnded,
    RunStarted,
    StepName,
    StepStarted,
    TrainingStep,
)
from selfloop.history import History
from selfloop.protocols import AskContext, Backend, TuneContext, VerifyContext
from selfloop.records import Attempt, Claim, Completion, Failure, Outcome, Question, Round, Verdict
from selfloop.testing.scripted import ScriptedBackend

# A model may write this. It must not act on a terminal, a template or a page.
HOSTILE = "\x1b[31m{question} %s [bold]\u202e\x00<b>\ud800"

# Claims of every form that a detector may meet.
CLAIMS = (
    # a plain answer without samples
    Claim(Question("What is the capital of Egypt?", "test"), Completion("Cairo", (1,), (-0.1,))),
    # no text at all
    Claim(Question("?", "test"), Completion("", (), ()), (Completion("", (), ()),)),
    # an escape sequence of a terminal, and a token of probability 0
    Claim(
        Question("Who was it?", "test"),
        Completion("Ada \x1b[31m Lovelace", (1, 2), (-0.5, float("-inf"))),
        tuple(Completion("Ada Lovelace", (1, 2), (-0.5, -0.25), sample=k) for k in range(4)),
    ),
    # the placeholder of a prompt in the question; an answer that declines
    Claim(
        Question("What does {answer} mean?", "test"),
        Completion(" I don't know", (7, 8, 9), (-0.5, -0.25, -0.125)),
        (
            Completion("nothing", (4,), (-1.5,)),
            Completion(" I don't know", (7, 8, 9), (-0.5, -0.25, -0.125), sample=1),
        ),
    ),
    # a revision, and samples that differ
    Claim(
        Question("How many legs does a spider have?", "test"),
        # never read after the bare question, so without log-probabilities
        Completion("eight", (), ()),
        tuple(
            Completion(text, (k,), (-0.75,), sample=k)
            for k, text in enumerate(("eight", "six", "eight legs"))
        ),
        "revision",
    ),
    # longer than any context
    Claim(
        Question("How long?", "test"), Completion("x " * 10_000, (1,) * 10_000, (-1e-3,) * 10_000)
    ),
)


def verify_context(backend: Backend | None = None, prompts: Path | None = None) -> VerifyContext:
    """Return the context of a detector, critic or few-shot selector.

    `backend` is a scripted one by default; `prompts` is a folder of prompts beside the built-in
    ones.
    """
    backend = backend or ScriptedBackend()
    render = partial(Prompts([prompts] if prompts else []).render, chat=backend.describe().chat)
    return VerifyContext(backend, render, lambda claims: [()] * len(claims))


def ask_context(
    backend: Backend | None = None, prompts: Path | None = None, asked: Sequence[str] = ()
) -> AskContext:
    """Return the context of a source or a scorer in round 2, with `asked` asked in round 1."""
    context = verify_context(backend, prompts)
    history = history_of(asked)
    return AskContext(
        n=6,
        round=2,
        turn=0,
        seed=1,
        backend=context.backend,
        history=history,
        prompt=context.prompt,
    )


def history_of(asked: Sequence[str] = (), dropped: Sequence[str] = ()) -> History:
    """Return the past after a round in which these questions were asked and those dropped."""
    outcomes = [Outcome(Question(text, "test"), "undecided", round=1) for text in asked]
    outcomes += [Outcome(Question(text, "test"), "dropped", round=1) for text in dropped]
    return History(1, tuple(outcomes))


def attempts(count: int = 12) -> tuple[Attempt, ...]:
    """Return the attempts of a round that ended: in turns a belief and an "I don't know"."""
    return tuple(_attempt(number, believed=not number % 2) for number in range(count))


def _attempt(number: int, *, believed: bool) -> Attempt:
    question = Question(f"What is the capital of country {number}?", "test")
    confidence = 0.9 if believed else 0.1
    # four samples that agree with the draft: detectors have no reason to doubt it
    draft = Completion(f"Town {number}", (number,), (-0.1,))
    return Attempt(
        question,
        draft=draft,
        samples=(draft,) * 4,
        verdicts=(Verdict("test", confidence),),
        decision="belief" if believed else "declined",
        reason=f"confidence {confidence:.2f}",
        confidence=confidence,
    )


def tune_context(
    folder: Path,
    backend: Backend | None = None,
    prompts: Path | None = None,
    done: Sequence[Attempt] = attempts(),
    tell: Callable[[int, int, float], None] = lambda done, of, loss: None,
) -> TuneContext:
    """Return the context of a tuner after a first round that ended with the attempts `done`."""
    context = verify_context(backend, prompts)
    history = History().with_attempts(done)
    return TuneContext(1, done, history, folder, context.backend, context.prompt, 1, tell)


def events(folder: Path) -> list[Event]:
    """Return the events of a run of one round, in order, of every class.

    Among them are hostile texts of a model, a failure and a fault outside any attempt.
    """
    failure = Failure("answer", "test", "ValueError", HOSTILE)
    # everything that a model or a component wrote is hostile
    odd = Attempt(
        Question(HOSTILE, "test"), draft=Completion(HOSTILE), decision="undecided", reason=HOSTILE
    )
    # decided, hostile and failed attempts
    done = (*attempts(4), odd, Attempt(Question("?", "test")).failed(failure))
    steps: list[Event] = []
    for step in get_args(StepName):
        steps.append(StepStarted(1, step, 6))
        steps += [CompletionDone(step, 5, False), CompletionDone(step, 0, True)]
    return [
        RunStarted("test", str(folder), 1, 0, ScriptedBackend().describe()),
        *steps,
        TrainingStep(1, 1, 2, 0.5),
        TrainingStep(1, 2, 2, float("nan")),
        *(AttemptEnded(1, attempt) for attempt in done),
        ComponentFailed(1, failure),
        RoundEnded(Round(1, done, None, (failure,))),
        RunEnded(str(folder), "done"),
    ]
