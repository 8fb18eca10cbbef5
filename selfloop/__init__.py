"""selfloop: a language model finds out what it knows. Read `selfloop/loop.py` first.

The functions of the library are in `selfloop.api`. They are imported when they are first used, so
that the command line and plugins start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from selfloop._version import __version__
from selfloop.errors import SelfloopError
from selfloop.history import History
from selfloop.protocols import AskContext, Component, TuneContext, VerifyContext
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
    from selfloop.api.ask import Answer, ask
    from selfloop.api.builtin import Export, RunComparison, compare, dataset, export
    from selfloop.api.choices import ChoiceEvaluation
    from selfloop.api.evaluate import Evaluation, evaluate
    from selfloop.api.plan import Plan, plan
    from selfloop.api.recipes import check
    from selfloop.api.runs import Run, load, rescore, run
    from selfloop.api.score import ScoredAnswer, Scores, score

    open = load
else:
    # public name -> module of `selfloop.api`, and its name there if that is another
    _LAZY = {
        "Answer": "ask",
        "ChoiceEvaluation": "choices",
        "Evaluation": "evaluate",
        "Export": "builtin",
        "Plan": "plan",
        "Run": "runs",
        "RunComparison": "builtin",
        "ScoredAnswer": "score",
        "Scores": "score",
        "ask": "ask",
        "check": "recipes",
        "compare": "builtin",
        "dataset": "builtin",
        "evaluate": "evaluate",
        "export": "builtin",
        "load": "runs",
        "open": "runs:load",
        "plan": "plan",
        "rescore": "runs",
        "run": "runs",
        "score": "score",
    }

    def __getattr__(name: str) -> Any:
        """Import a function of the library when it is first used."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _LAZY[name].partition(":")
        return getattr(import_module(f"selfloop.api.{module}"), attribute or name)


# `open` is an older name of `load`. It is left out, so that `import *` keeps the builtin.
__all__ = [
    "Answer",
    "AskContext",
    "Attempt",
    "Belief",
    "ChoiceEvaluation",
    "Claim",
    "Completion",
    "Component",
    "Evaluation",
    "Export",
    "VerifyContext",
    "Message",
    "Outcome",
    "History",
    "Plan",
    "Question",
    "Request",
    "Round",
    "Run",
    "RunComparison",
    "Sampling",
    "Score",
    "ScoredAnswer",
    "Scores",
    "SelfloopError",
    "TuneContext",
    "Verdict",
    "__version__",
    "ask",
    "check",
    "compare",
    "dataset",
    "evaluate",
    "export",
    "hookimpl",
    "load",
    "plan",
    "rescore",
    "run",
    "score",
]
