"""selfloop: a language model finds out what it knows. Read `selfloop/loop.py` first."""

from selfloop.errors import SelfloopError
from selfloop.hookspecs import hookimpl
from selfloop.ledger import Past
from selfloop.protocols import Asking, Component, Judging, Tuning
from selfloop.records import (
    Attempt,
    Belief,
    Claim,
    Completion,
    Message,
    Outcome,
    Question,
    Request,
    Round,
    Sampling,
    Score,
    Verdict,
)

__version__ = "0.1.0"

__all__ = [
    "Asking",
    "Attempt",
    "Belief",
    "Claim",
    "Completion",
    "Component",
    "Judging",
    "Message",
    "Outcome",
    "Past",
    "Question",
    "Request",
    "Round",
    "Sampling",
    "Score",
    "SelfloopError",
    "Tuning",
    "Verdict",
    "__version__",
    "hookimpl",
]
