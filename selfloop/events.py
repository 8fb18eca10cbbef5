"""What observers are told, in the order it happens.

Frozen, small, and free of the model's tensors.
"""

from dataclasses import dataclass
from typing import Literal

from selfloop.records import Attempt, Failure, ModelInfo, Round

StepName = Literal["ask", "answer", "critique", "revise", "verify", "decide", "tune"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run starts or goes on. `done` rounds of `rounds` were there already."""

    name: str
    folder: str
    rounds: int
    done: int
    model: ModelInfo


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step of a round starts on `attempts` attempts (for `ask`: so many are wanted)."""

    round: int
    step: StepName
    attempts: int


@dataclass(frozen=True, slots=True)
class CompletionDone:
    """The model finished one completion (`replayed`: it was there from before).

    Comes often: be quick.
    """

    step: str
    tokens: int
    replayed: bool


@dataclass(frozen=True, slots=True)
class BatchLearnt:
    """A tuner learnt from its batch number `done` of `of`, and this was the loss.

    Comes often: be quick.
    """

    round: int
    done: int
    of: int
    loss: float


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """One question went all the way and was decided, or was dropped or failed on the way."""

    round: int
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class RoundEnded:
    """A round ended and is stored."""

    round: Round


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something failed outside any one attempt: a source, a tuner, an observer."""

    round: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run ended: all rounds done, or stopped, or failed; `error` is the message of the failure."""

    folder: str
    outcome: Literal["done", "stopped", "failed"]
    error: str = ""


Event = (
    RunStarted
    | StepStarted
    | CompletionDone
    | BatchLearnt
    | AttemptEnded
    | RoundEnded
    | Trouble
    | RunEnded
)
