"""The contracts of `selfloop.testing`, held against every component that comes with selfloop.

The cases are made from the catalogue: a component that is added is tested here without a line.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from selfloop_plugins.backends import hf, llama_cpp, scripted

from selfloop.protocols import Component
from selfloop.registry.manager import load
from selfloop.testing import (
    BackendContract,
    Contract,
    CriticContract,
    DetectorContract,
    FewShotContract,
    ObserverContract,
    QuestionSourceContract,
    ScorerContract,
    ScriptedBackend,
)

FACTS = Path(__file__).parents[2] / "recipes" / "facts.jsonl"
QUESTIONS = Path(__file__).parents[1] / "data" / "contract_questions.jsonl"

CONTRACTS: Mapping[str, type[Contract]] = {
    "detector": DetectorContract,
    "scorer": ScorerContract,
    "critic": CriticContract,
    "few_shot": FewShotContract,
    "source": QuestionSourceContract,
    "observer": ObserverContract,
}
# A component with options that it cannot do without is built with these. The others are built with
# their defaults, and the run's folder where they take one.
OPTIONS: Mapping[str, dict[str, Any]] = {
    "dataset": {"path": QUESTIONS},
    "file": {"path": FACTS},
    "jsonl": {"completions": True},
}
# Components that are tested once more, with other options.
MORE_CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("detector", "reverse_question", {"by": "overlap"}),
    ("scorer", "well_formed", {"min_words": 1, "max_words": 2}),
    ("observer", "console", {"mode": "live"}),
)
# Extras, without which the cases of a component are skipped.
EXTRAS = {name: name for name in ("mlflow", "tensorboard", "trackio", "wandb")}
EXTRAS["own_demonstrations"] = "stats"
# Components that take long: these write whole files after each event of the contract.
SLOW = {"report", "tensorboard"}
BACKENDS = {"scripted", "llama_cpp", "hf"}
# A tuner needs a model, so it has its tests in tests/plugins/tuners/test_lora.py.
TUNERS = {"lora"}


def built_in() -> Iterator[tuple[str, Component]]:
    """Yield the kind and the component of all that comes with selfloop."""
    for kind, offer in load():
        if _is_built_in(offer.component):
            yield kind, offer.component


def _is_built_in(component: Component) -> bool:
    return str(component.build.__module__).startswith("selfloop_plugins.")


def contract_case(
    kind: str, component: Component, options: dict[str, Any], suffix: str = ""
) -> type[Contract]:
    """Return a test class that holds a component to the contract of its kind."""
    title = "".join(word.title() for word in f"{component.name}{suffix}".split("_"))
    attributes = {"component": component, "options": options, "__module__": __name__}
    case = type(f"Test{title}", (CONTRACTS[kind],), attributes)
    if component.name in EXTRAS:
        case = pytest.mark.extra(EXTRAS[component.name])(case)
    return pytest.mark.slow(case) if component.name in SLOW else case


def contract_cases() -> Iterator[type[Contract]]:
    """Yield a test class for each component of the catalogue, and those of MORE_CASES."""
    by_name = {}
    for kind, component in built_in():
        if kind in CONTRACTS:
            by_name[kind, component.name] = component
            yield contract_case(kind, component, OPTIONS.get(component.name, {}))
    for kind, name, options in MORE_CASES:
        yield contract_case(kind, by_name[kind, name], options, f"_with_{'_'.join(options)}")


# pytest collects test classes by their names in the module
globals().update({case.__name__: case for case in contract_cases()})


class TestScripted(BackendContract):
    def backend(self) -> Any:
        return scripted.selfloop_backends()[0].build()


class TestScriptedChat(BackendContract):
    def backend(self) -> Any:
        return ScriptedBackend(chat=True)


@pytest.fixture(scope="module")
def smollm2() -> Iterator[Any]:
    backend = llama_cpp.build(model="smollm2-135m-instruct", n_ctx=2048, sequences=8)
    yield backend
    backend.close()


@pytest.mark.model
class TestLlamaCpp(BackendContract):
    model: Any

    @pytest.fixture(autouse=True)
    def _shared(self, smollm2: Any) -> None:
        self.model = smollm2

    def backend(self) -> Any:
        return self.model


@pytest.fixture(scope="module")
def transformed() -> Iterator[Any]:
    backend = hf.build(model="smollm2-135m-instruct", batch=8)
    yield backend
    backend.close()


@pytest.mark.model
class TestTransformers(BackendContract):
    prompts = ("Question: What is the capital of Egypt?\nAnswer:", "One, two, three,", "x " * 40)
    model: Any

    @pytest.fixture(autouse=True)
    def _shared(self, transformed: Any) -> None:
        self.model = transformed

    def backend(self) -> Any:
        return self.model


def test_all_that_is_built_in_is_held_to_its_contract() -> None:
    """Every component is a case above, and no two cases share a name, which would hide one."""
    tested = {case.component.name for case in contract_cases()}
    collected = {name for name, case in globals().items() if isinstance(case, type)}
    assert {case.__name__ for case in contract_cases()} <= collected
    names: dict[str, set[str]] = {kind: set() for kind in (*CONTRACTS, "backend", "tuner")}
    for kind, component in built_in():
        names[kind].add(component.name)
    assert set().union(*(names[kind] for kind in CONTRACTS)) == tested
    assert len(list(contract_cases())) == len({case.__name__ for case in contract_cases()})
    assert names["backend"] == BACKENDS
    assert names["tuner"] == TUNERS


def test_every_component_says_what_it_is() -> None:
    catalog = load()
    assert catalog.broken == {}
    for kind, component in built_in():
        assert component.doc, f"{kind} {component.name} has no doc"
        assert not component.doc.endswith(".")
        assert not component.paper or component.paper.startswith("https://")


class _Broken:
    """A detector that looks at its neighbours, and forgets one of an odd number."""

    def verify(self, claims: Any, verify_context: Any) -> list[Any]:
        from selfloop import Verdict

        return [Verdict("broken", 1 / len(claims)) for _ in claims][: len(claims) // 2 * 2]


AGREEMENT = load().find("detector", "agreement")


def test_the_contract_can_be_broken() -> None:
    class Case(DetectorContract):
        component = AGREEMENT

        def build(self) -> Any:
            return _Broken()

    with pytest.raises((AssertionError, StopIteration, IndexError)):
        Case().test_claims_are_judged_apart()
