"""A selfloop plugin in one module: a backend that stops at a token budget, and a verifier that
hears hedging.

An entry point in `pyproject.toml` names this module; selfloop calls the two hooks at its end.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt

from selfloop import Claim, Completion, Component, Judging, Request, Verdict, hookimpl
from selfloop.errors import RecipeError, RequestError
from selfloop.protocols import Backend
from selfloop.records import Adapter, AdapterProof, Continuation, ModelInfo

GIVES = frozenset({"logprobs", "chat", "adapters"})
HEDGES = (
    "maybe",
    "perhaps",
    "possibly",
    "probably",
    "might",
    "could be",
    "i think",
    "i guess",
    "not sure",
)


class Budgeted:
    """Passes requests on to another backend until it has written `budget` tokens; then refuses the
    rest.

    What a resumed run replays never gets here, so it costs nothing. Each process has a budget of
    its own.
    """

    def __init__(self, inner: Backend, budget: int) -> None:
        self._inner, self._budget, self._left = inner, budget, budget

    def describe(self) -> ModelInfo:
        """Return what the other backend says: a run can be resumed with the budget or without."""
        return self._inner.describe()

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield completions as they finish, then one `RequestError` for each request that is not done."""
        missing = {i: request.n - len(request.skip) for i, request in enumerate(requests)}
        results = iter(self._inner.generate(requests))
        while self._left > 0 and (found := next(results, None)):
            index, result = found
            if isinstance(result, RequestError):
                missing[index] = 0
            else:
                missing[index] -= 1
                self._left -= max(1, len(result.tokens))
            yield index, result
        if self._left <= 0:
            for index in (i for i, count in missing.items() if count):
                yield index, RequestError(f"the token budget of {self._budget} is spent")

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Ask the other backend, if it can: nothing is written."""
        return self._inner.loglikelihood(pairs)

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> list[Any]:
        """Ask the other backend, if it can: nothing is written."""
        return self._inner.hidden_states(pairs, places, layer)

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the other backend's adapter."""
        return self._inner.load_adapter(adapter)

    def close(self) -> None:
        """Free the model."""
        self._inner.close()


def build(
    *, budget: Annotated[int, Ge(1)], inner: str = "scripted", options: dict[str, Any] | None = None
) -> Budgeted:
    """Wrap the backend that is named `inner`, built with `options`."""
    component, checked = _inner(inner, options or {})
    return Budgeted(component.build(**checked), budget)


def check(*, budget: int, inner: str = "scripted", options: dict[str, Any] | None = None) -> None:
    """Raise what is wrong with the inner backend's options, before any model loads."""
    component, checked = _inner(inner, options or {})
    if component.check is not None:
        component.check(**checked)


def _inner(name: str, options: dict[str, Any]) -> tuple[Component, dict[str, Any]]:
    """Return the inner backend and its options, checked as selfloop checks a recipe's own."""
    from selfloop.config.options import options_model
    from selfloop.config.recipe import validated
    from selfloop.registry.manager import load

    component = load().find("backend", name)
    mistakes: list[Any] = []
    model = validated(options_model(component.build), options, ("backend", "options"), mistakes)
    mistakes += [
        (("backend", "inner"), f"{name} lacks {word}.") for word in sorted(GIVES - component.gives)
    ]
    if mistakes or model is None:
        raise RecipeError(
            "\n".join(f"{'.'.join(map(str, where))}: {why}" for where, why in mistakes)
        )
    return component, {key: getattr(model, key) for key in model.model_fields_set}


class Hedging:
    """Confidence is `each` to the power of the number of hedges in the answer; without one it
    abstains.

    To hedge is to say that one may be wrong. Not to hedge says nothing: a small model guesses with
    a straight face.
    """

    def __init__(
        self, *, each: Annotated[float, Gt(0), Lt(1)] = 0.5, words: tuple[str, ...] = HEDGES
    ) -> None:
        self._each = each
        self._words = re.compile(r"\b(" + "|".join(map(re.escape, words)) + r")\b", re.IGNORECASE)

    def verify(self, claims: Sequence[Claim], judging: Judging) -> list[Verdict]:
        """Return one verdict for each claim."""
        return [self._judge(claim.answer.text.strip()) for claim in claims]

    def _judge(self, answer: str) -> Verdict:
        if not answer:
            return Verdict("hedging", None, "the answer is empty")
        hedges = self._words.findall(answer)
        if not hedges:
            return Verdict("hedging", None, "no hedge words, which says nothing")
        return Verdict("hedging", self._each ** len(hedges), f"hedges: {', '.join(hedges[:5])}")


@hookimpl
def selfloop_backends() -> list[Component]:
    """Offer the backend."""
    doc = "another backend, until it has written `budget` tokens"
    return [Component("budgeted", build, doc=doc, gives=GIVES, check=check)]


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    return [Component("hedging", Hedging, doc="low confidence for answers that hedge")]
