"""A selfloop plugin in one module: a backend that stops at a token budget, and a detector that
hears hedging.

An entry point in `pyproject.toml` names this module; selfloop calls the two hooks at its end.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt

from selfloop.plugin import (
    Adapter,
    AdapterProof,
    Backend,
    Claim,
    Completion,
    Component,
    Continuation,
    ModelInfo,
    Request,
    RequestError,
    Verdict,
    VerifyContext,
    hookimpl,
)

SELFLOOP_PLUGIN_API = 1  # the version of selfloop.plugin that this module was written for

# A wrapping backend lets these capabilities of the inner one through, if it has them.
PASSED_ON = frozenset(
    {"logprobs", "entropies", "chat", "loglikelihood", "hidden_states", "adapters"}
)
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
MAX_REASON_HEDGES = 5  # hedges that a verdict's reason lists


class Budgeted:
    """Passes requests on to another backend until it has written `budget` tokens. Then it refuses
    the rest.

    What a resumed run replays never gets here, so it costs nothing. Each process has a budget of
    its own.
    """

    def __init__(self, *, budget: Annotated[int, Ge(1)], inner: Backend) -> None:
        # selfloop has checked and built the backend that the recipe names as `inner`
        self._inner, self._budget, self._left = inner, budget, budget

    def describe(self) -> ModelInfo:
        """Describe the inner backend: a run can be resumed with the budget or without."""
        return self._inner.describe()

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield completions as they finish, then one `RequestError` for each unfinished request."""
        # completions that are still to come, by the index of the request
        missing = {i: request.n - len(request.skip) for i, request in enumerate(requests)}
        if self._left > 0:
            for index, result in self._inner.generate(requests):
                if isinstance(result, RequestError):
                    missing[index] = 0
                else:
                    missing[index] -= 1
                    # an empty completion costs a token too, or the budget might never be spent
                    self._left -= max(1, len(result.tokens))
                yield index, result
                if self._left <= 0:
                    break
        if self._left <= 0:
            for index, count in missing.items():
                if count:
                    yield index, RequestError(f"the token budget of {self._budget} is spent")

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Ask the inner backend: nothing is written, so nothing is spent."""
        return self._inner.loglikelihood(pairs)

    def hidden_states(
        self, pairs: Sequence[Continuation], positions: Sequence[int] = (0, -1), layer: int = -1
    ) -> list[Any]:
        """Ask the inner backend: nothing is written, so nothing is spent."""
        return self._inner.hidden_states(pairs, positions, layer)

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the inner backend's adapter."""
        return self._inner.load_adapter(adapter)

    def close(self) -> None:
        """Free the model."""
        self._inner.close()


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
        # whole words only: `mighty` is not a hedge
        self._words = re.compile(r"\b(" + "|".join(map(re.escape, words)) + r")\b", re.IGNORECASE)

    def verify(self, claims: Sequence[Claim], context: VerifyContext) -> list[Verdict]:
        """Return one verdict for each claim."""
        return [self._judge(claim.answer.text.strip()) for claim in claims]

    def _judge(self, answer: str) -> Verdict:
        if not answer:
            return Verdict("hedging", None, "the answer is empty")
        hedges = self._words.findall(answer)
        if not hedges:
            return Verdict("hedging", None, "no hedge words, which says nothing")
        confidence = self._each ** len(hedges)
        listed = ", ".join(hedges[:MAX_REASON_HEDGES])
        return Verdict("hedging", confidence, f"hedges: {listed}")


@hookimpl
def selfloop_backends() -> list[Component]:
    """Offer the backend."""
    doc = "another backend, until it has written `budget` tokens"
    return [Component("budgeted", Budgeted, doc=doc, gives=PASSED_ON, wraps="inner")]


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    return [Component("hedging", Hedging, doc="low confidence for answers that hedge")]
