"""For plugin authors: a backend without a model, and tests to subclass.

    from selfloop.testing import DetectorContract

    class TestMine(DetectorContract):
        component = my_plugin.selfloop_detectors()[0]

Only the subclass needs pytest. Read in this order:

scripted.py  the backend: replies from a script
contexts.py  the contexts, claims, attempts and events of a run that never was
contract.py  the requirements on every component; one module for each kind has the others
"""

from selfloop.testing.backend import BackendContract
from selfloop.testing.command import CommandContract, examples
from selfloop.testing.contexts import (
    CLAIMS,
    ask_context,
    attempts,
    events,
    history_of,
    tune_context,
    verify_context,
)
from selfloop.testing.contract import Contract
from selfloop.testing.critic import CriticContract
from selfloop.testing.detector import DetectorContract
from selfloop.testing.few_shot import FewShotContract
from selfloop.testing.observer import ObserverContract
from selfloop.testing.scorer import ScorerContract
from selfloop.testing.scripted import WORLD, Limited, ScriptedBackend
from selfloop.testing.source import QuestionSourceContract
from selfloop.testing.tuner import TunerContract

__all__ = [
    "CLAIMS",
    "WORLD",
    "BackendContract",
    "CommandContract",
    "Contract",
    "CriticContract",
    "FewShotContract",
    "Limited",
    "ObserverContract",
    "QuestionSourceContract",
    "ScorerContract",
    "ScriptedBackend",
    "TunerContract",
    "DetectorContract",
    "ask_context",
    "attempts",
    "events",
    "examples",
    "verify_context",
    "history_of",
    "tune_context",
]
