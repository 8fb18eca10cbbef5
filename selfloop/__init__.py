"""selfloop: a language model finds out what it knows. Read `selfloop/loop.py` first."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from selfloop._version import __version__
from selfloop.errors import SelfloopError
from selfloop.history import Past
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
from selfloop.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from selfloop.library import Run, open, run
else:

    def __getattr__(name: str) -> Any:
        """Import what only notebooks and scripts need when they ask for it: the command line must start at once."""
        if name in ("Run", "open", "run"):
            return getattr(import_module("selfloop.library"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Asking", "Attempt", "Belief", "Claim", "Completion", "Component", "Judging", "Message", "Outcome", "Past",
    "Question", "Request", "Round", "Run", "Sampling", "Score", "SelfloopError", "Tuning", "Verdict", "__version__",
    "hookimpl", "open", "run",
]  # fmt: skip
