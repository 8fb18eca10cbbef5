"""For plugin authors: a backend without a model, and tests to subclass. Needs pytest only where it
is subclassed.

from selfloop.testing import VerifierContract

class TestMine(VerifierContract):
    component = my_plugin.selfloop_verifiers()[0]

scripted.py  the backend: replies from a script
told.py      what components are told in a run, made up
contract.py  what every component must be; one module for each kind says what it must do
"""

from selfloop.testing.backend import BackendContract
from selfloop.testing.command import CommandContract, examples
from selfloop.testing.contract import Contract
from selfloop.testing.critic import CriticContract
from selfloop.testing.demonstrator import DemonstratorContract
from selfloop.testing.observer import ObserverContract
from selfloop.testing.scorer import ScorerContract
from selfloop.testing.scripted import WORLD, Limited, ScriptedBackend
from selfloop.testing.source import QuestionSourceContract
from selfloop.testing.told import CLAIMS, asking, attempts, events, judging, past_of, tuning
from selfloop.testing.tuner import TunerContract
from selfloop.testing.verifier import VerifierContract

__all__ = [
    "CLAIMS",
    "WORLD",
    "BackendContract",
    "CommandContract",
    "Contract",
    "CriticContract",
    "DemonstratorContract",
    "Limited",
    "ObserverContract",
    "QuestionSourceContract",
    "ScorerContract",
    "ScriptedBackend",
    "TunerContract",
    "VerifierContract",
    "asking",
    "attempts",
    "events",
    "examples",
    "judging",
    "past_of",
    "tuning",
]
