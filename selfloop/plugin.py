"""Everything that the author of a plugin imports. `docs/plugins.md` is the tutorial.

`PLUGIN_API` is the version of this module, the hooks and the protocols. Names that are here stay
here, with their fields and signatures, as long as the version stays. It rises when a plugin that
was written for the old version would break.

Offer components
    `hookimpl` marks a hook, `Component` is one thing that it offers.
The protocols, one for each kind of component
    `Backend`, `QuestionSource`, `Scorer`, `Detector`, `Critic`, `FewShotSelector`, `Tuner` and
    `Observer`. A component need not inherit from its protocol.
Contexts: the argument of a component beside the items
    `AskContext` for sources and scorers, `TuneContext` for tuners, and `VerifyContext` for
    detectors, critics and few-shot selectors. Each has the `History` of the run's earlier rounds.
Records
    Frozen data, from `Question` to `Round`.
Prompts
    `Prompt` is text for a base model or messages for a chat model. `is_open` says whether the model
    goes on with the last message, `continued` adds text that it has written.
Errors
    Raise one of these for a mistake that a person can correct. Its text is the whole message.
Events
    Observers get them in the order in which they happen. `Event` is the union of all.
For commands
    `run_argument`, `runs_dir`, `run_folder` and `as_json` are the options that selfloop's own
    commands have. `run` plays a recipe and `Run` reads a run. These are imported when they are
    asked for.
Helpers
    `printable` makes a model's text safe for a terminal, `progress` reports how far long work is.

Tests import from `selfloop.testing`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from selfloop import progress
from selfloop.config.prompts import Prompt, continued, is_open
from selfloop.errors import (
    MissingExtraError,
    ModelError,
    PluginError,
    RecipeError,
    RequestError,
    SelfloopError,
    StoreError,
)
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
from selfloop.history import History
from selfloop.protocols import (
    CAPABILITIES,
    AskContext,
    Backend,
    Component,
    Critic,
    Detector,
    FewShotSelector,
    Observer,
    QuestionSource,
    Scorer,
    TuneContext,
    Tuner,
    VerifyContext,
)
from selfloop.records import (
    Adapter,
    AdapterProof,
    Attempt,
    Belief,
    Claim,
    Completion,
    Continuation,
    Decision,
    Failure,
    Message,
    ModelInfo,
    Outcome,
    Question,
    Request,
    Round,
    Sampling,
    Score,
    Verdict,
)
from selfloop.registry.hookspecs import PLUGIN_API, hookimpl
from selfloop.text.display import printable

# Plugins are imported each time that `selfloop` starts: click's options and the library, which
# needs pydantic, must not be imported with them.
LAZY = {
    "Run": "selfloop.api.runs",
    "as_json": "selfloop.cli.options",
    "run": "selfloop.api.runs",
    "run_argument": "selfloop.cli.options",
    "run_folder": "selfloop.cli.options",
    "runs_dir": "selfloop.cli.options",
}
if TYPE_CHECKING:
    from selfloop.api.runs import Run, run
    from selfloop.cli.options import as_json, run_argument, run_folder, runs_dir
else:

    def __getattr__(name: str) -> Any:
        """Import a name of `LAZY` when it is asked for."""
        if name in LAZY:
            return getattr(import_module(LAZY[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "CAPABILITIES",
    "PLUGIN_API",
    "Adapter",
    "AdapterProof",
    "AskContext",
    "Attempt",
    "AttemptEnded",
    "Backend",
    "TrainingStep",
    "Belief",
    "Claim",
    "Completion",
    "CompletionDone",
    "Component",
    "Continuation",
    "Critic",
    "Decision",
    "FewShotSelector",
    "Event",
    "Failure",
    "VerifyContext",
    "Message",
    "MissingExtraError",
    "ModelError",
    "ModelInfo",
    "Observer",
    "Outcome",
    "History",
    "PluginError",
    "Prompt",
    "Question",
    "QuestionSource",
    "RecipeError",
    "Request",
    "RequestError",
    "Round",
    "RoundEnded",
    "Run",
    "RunEnded",
    "RunStarted",
    "Sampling",
    "Score",
    "Scorer",
    "SelfloopError",
    "StepStarted",
    "StoreError",
    "ComponentFailed",
    "Tuner",
    "TuneContext",
    "Verdict",
    "Detector",
    "as_json",
    "continued",
    "hookimpl",
    "is_open",
    "printable",
    "progress",
    "run",
    "run_argument",
    "run_folder",
    "runs_dir",
]
