"""The events that observers get, in the order in which they happen.

All are frozen and small, without tensors of the model. Observers may keep them.
"""

from dataclasses import dataclass
from typing import Literal

from selfloop.records import Attempt, Failure, ModelInfo, Round

StepName = Literal["ask", "answer", "critique", "revise", "verify", "decide", "tune"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run starts or goes on. `done` of its `rounds` rounds were stored before."""

    name: str
    folder: str
    rounds: int
    done: int
    model: ModelInfo


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step of a round starts on `attempts` attempts; `ask` starts with the number wanted."""

    round: int
    step: StepName
    attempts: int


@dataclass(frozen=True, slots=True)
class CompletionDone:
    """The model finished one completion of `tokens` tokens, or it was `replayed` from the store.

    This event comes often: be quick.
    """

    step: str
    tokens: int
    replayed: bool


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """A tuner trained on its batch number `done` (from 1) of `of`, with this loss.

    This event comes often: be quick.
    """

    round: int
    done: int
    of: int
    loss: float


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """One question was decided, or was dropped or failed in an earlier step."""

    round: int
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class RoundEnded:
    """A round ended and was stored."""

    round: Round


@dataclass(frozen=True, slots=True)
class ComponentFailed:
    """A component failed outside any one attempt: a source, a tuner, an observer (round 0)."""

    round: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run ended: all rounds are done, or it was stopped, or it failed with `error`."""

    folder: str
    outcome: Literal["done", "stopped", "failed"]
    error: str = ""


Event = (
    RunStarted
    | StepStarted
    | CompletionDone
    | TrainingStep
    | AttemptEnded
    | RoundEnded
    | ComponentFailed
    | RunEnded
)
