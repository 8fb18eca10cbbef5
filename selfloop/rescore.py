"""Judges and decides a finished run again, with other verifiers or thresholds, out of what is stored.

The model is opened only if a verifier asks it for what nobody asked before. The run stays as it is: what comes out is
a run of its own, which `show`, `eval` and `resume` take like any other.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from selfloop.answers import also_declining
from selfloop.assemble import assemble, built, check
from selfloop.errors import StoreError
from selfloop.ledger import Past
from selfloop.protocols import Backend
from selfloop.recipe import Loaded
from selfloop.records import Adapter, AdapterProof, Attempt, Completion, Continuation, ModelInfo, Request, Round
from selfloop.runner import new_folder, stored_recipe
from selfloop.steps import ADAPTERS, Turn, decide, verify
from selfloop.store import RECIPE, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from selfloop.errors import RequestError


def rescore(folder: Path, overrides: tuple[str, ...] = (), runs: Path = Path("runs")) -> Path:
    """Judge the run in `folder` again by its recipe with `overrides`; return the folder of the new run.

    Raises SelfloopError for what is wrong with the run or the recipe.
    """
    old = Store(folder, write=False)
    try:
        loaded = stored_recipe(old, overrides)
        check(loaded)
        model, name = old.model(), old.meta().get("name", folder.name)
        made = new_folder(runs, f"{name}-rescored")
        old.copy(made)
        if (folder / ADAPTERS).is_dir():
            shutil.copytree(folder / ADAPTERS, made / ADAPTERS)
    finally:
        old.close()
    store = Store(made, write=True)
    try:
        rounds = list(store.rounds())
        store.forget_rounds()
        store.save_file(RECIPE, loaded.source.text())
        store.begin_session({"rescored": str(folder)})
        with also_declining(loaded.recipe.answer.declines):
            for ended in _rejudged(loaded, made, store, TypeAdapter(ModelInfo).validate_python(model), rounds):
                store.save_round(ended)
    finally:
        store.close()
    return made


def _rejudged(loaded: Loaded, folder: Path, store: Store, info: ModelInfo, rounds: Sequence[Round]) -> Iterator[Round]:
    silent = replace(loaded, recipe=loaded.recipe.model_copy(update={"observers": []}))
    parts = assemble(silent, folder, store, Unopened(silent, folder, info))
    try:
        past = Past()
        for ended in rounds:
            parts.load_adapter(past.adapter)
            turn = Turn(ended.number, loaded.recipe, parts, past)
            attempts = decide(turn, verify(turn, [_unjudged(attempt) for attempt in ended.attempts]))
            kept = tuple(failure for failure in ended.failures if failure.step != "verify")
            made = replace(ended, attempts=tuple(attempts), failures=(*kept, *turn.all_failures()))
            yield made
            past = replace(past.after(made), adapter=store.in_effect(rounds[: ended.number]))
    finally:
        parts.close()


def _unjudged(attempt: Attempt) -> Attempt:
    """Return what was known of an attempt before it was judged; one that never came so far stays as it is."""
    if attempt.decision in ("dropped", "failed"):
        return attempt
    kept = tuple(failure for failure in attempt.failures if failure.step != "verify")
    bare = replace(attempt, verdicts=(), failures=kept, decision=None, reason="", confidence=None, lowers=None)
    return replace(bare, chosen="draft")


class Unopened:
    """A backend that opens its model when it is first asked for something that only the model can tell."""

    def __init__(self, loaded: Loaded, folder: Path, info: ModelInfo) -> None:
        self._loaded, self._folder, self._info = loaded, folder, info
        self._adapter: Adapter | None = None

    @cached_property
    def _opened(self) -> Backend:
        backend: Backend = built(self._loaded, "backend", self._loaded.recipe.backend, self._folder)
        if (found := backend.describe()).sha256 != self._info.sha256:
            backend.close()
            raise StoreError(
                f"this run was made with {self._info.file} (sha256 {self._info.sha256[:12]}), but the file is now "
                f"another (sha256 {found.sha256[:12]}). Put the old file back, or use detectors that need no model."
            )
        if self._adapter:
            backend.load_adapter(self._adapter)
        return backend

    def describe(self) -> ModelInfo:
        """Return what was stored of the model."""
        return self._info

    def generate(self, requests: Sequence[Request]) -> "Iterator[tuple[int, Completion | RequestError]]":
        """Open the model and ask it."""
        return self._opened.generate(requests)

    def loglikelihood(self, pairs: Sequence[Continuation]) -> "list[tuple[float, ...] | RequestError]":
        """Open the model and ask it."""
        return self._opened.loglikelihood(pairs)

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Open the model and ask it."""
        return self._opened.hidden_states(pairs, places, layer)

    def attentions(self, pairs: Sequence[Continuation]) -> "list[NDArray[np.float32] | RequestError]":
        """Open the model and ask it."""
        return self._opened.attentions(pairs)

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Load it if the model is open; else remember it until it is."""
        self._adapter = adapter
        return self._opened.load_adapter(adapter) if "_opened" in self.__dict__ else AdapterProof(adapter, 0.0)

    def close(self) -> None:
        """Free the model if it was opened."""
        if "_opened" in self.__dict__:
            self._opened.close()
