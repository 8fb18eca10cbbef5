"""Judges and decides a finished run again, with other detectors or thresholds, from its records.

The model is opened only if a detector asks it for something new. The run stays as it is: the result
is a run of its own, which `show`, `eval` and `resume` take like any other.
"""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from selfloop.config.assembly import assemble, build_component, check
from selfloop.config.inputs import Pinned, inputs
from selfloop.config.recipe import LoadedRecipe
from selfloop.config.yaml_source import key_of, refuse_overrides
from selfloop.errors import RecipeError, StoreError
from selfloop.failed_steps import failed_steps, refuse_failed
from selfloop.history import History
from selfloop.protocols import Backend
from selfloop.records import (
    Adapter,
    AdapterProof,
    Attempt,
    Completion,
    Continuation,
    ModelInfo,
    Request,
    Round,
)
from selfloop.runner import new_folder, stored_recipe
from selfloop.steps.context import RoundContext
from selfloop.steps.decide import decide
from selfloop.steps.verify import verify
from selfloop.storage.pinned import verify_model
from selfloop.storage.run_folder import RunFolder
from selfloop.storage.store import Store
from selfloop.text.answers import also_declining

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from selfloop.errors import RequestError

APPLIED = ("detectors", "decide", "answer.declines", "plugins", "prompts", "backend")
# settings that the stored texts were generated with
GENERATING = ("backend.kind", "prompts.answer", "prompts.critique", "prompts.revise")
# places in the recipe of inputs that are not read again
NOT_REDONE = ("ask.", "tuner.")
REFUSED = (
    "nothing is generated anew by `rescore`: it applies detectors, decide, answer.declines, "
    "plugins, the options of the same backend, and prompts of detectors. For all else run the "
    "recipe again: selfloop run"
)


def rescore(folder: Path, overrides: tuple[str, ...] = (), runs: Path = Path("runs")) -> Path:
    """Judge the run in `folder` again by its recipe with `overrides`; return the folder of the new
    run.

    Raises SelfloopError for mistakes in the run or the recipe.
    """
    _refuse_ignored(overrides)
    with closing(Store(folder, write=False)) as old:
        loaded = stored_recipe(old, overrides)
        check(loaded)
        model, meta = old.model(), old.meta()
        if not old.count("rounds"):
            raise StoreError(
                f"no round of {folder} has ended, so there is nothing to judge. First: selfloop "
                f"resume {folder}"
            )
        pinned = _inputs(loaded, meta.get("inputs", {}))
        result = new_folder(runs, f"{meta.get('name', folder.name)}-rescored")
        try:
            old.copy(result)
            if old.files.adapters.is_dir():
                shutil.copytree(old.files.adapters, RunFolder(result).adapters)
            info = TypeAdapter(ModelInfo).validate_python(model)
            rounds = _judged_in(result, loaded, info, pinned, str(folder))
        except BaseException:
            # half of it is not a run, and nothing was generated
            shutil.rmtree(result, ignore_errors=True)
            raise
    # a step that failed in the old run is not this one's fault
    verify_context = [step for step in failed_steps(rounds) if step.step == "verify"]
    refuse_failed(result, rounds, verify_context)
    return result


def _refuse_ignored(overrides: Sequence[str]) -> None:
    """Raise RecipeError for a setting that would be in the new recipe without being applied."""
    refuse_overrides(overrides, APPLIED, only=True, because=REFUSED)
    refuse_overrides(overrides, GENERATING, only=False, because=REFUSED)
    for override in overrides:
        if key_of(override) in ("backend", "prompts"):
            raise RecipeError(
                f"--set {override}: set one part of it, as in backend.threads=4; {REFUSED}"
            )


def _refuse_unread(loaded: LoadedRecipe, rendered: Collection[str]) -> None:
    """Raise RecipeError for a prompt that was set, and that no detector has used."""
    for override in loaded.source.overrides:
        kind, _, name = key_of(override).partition(".")
        if kind == "prompts" and name not in rendered:
            raise RecipeError(f"--set {override}: no detector has used this prompt; {REFUSED}")


def _inputs(loaded: LoadedRecipe, before: Pinned) -> dict[str, Mapping[str, str]]:
    """Return the inputs to pin.

    Those of asking and tuning are as they were when the run began; those of judging are as they are
    now.
    """
    present = inputs(loaded)
    kept = {place: entry for place, entry in before.items() if place.startswith(NOT_REDONE)}
    redone = {place: entry for place, entry in present.items() if not place.startswith(NOT_REDONE)}
    return kept | redone


def _judged_in(
    folder: Path, loaded: LoadedRecipe, info: ModelInfo, pinned: Pinned, before: str
) -> list[Round]:
    """Judge the rounds that were copied into `folder` again; return them as they are now."""
    with closing(Store(folder, write=True)) as store:
        rounds = list(store.rounds())
        store.forget_rounds()
        store.set_meta(inputs=pinned)
        store.save_file(store.files.recipe, loaded.source.text())
        store.begin_session({"rescored": before})
        with also_declining(loaded.recipe.answer.declines):
            for ended in _rejudged(loaded, folder, store, info, rounds):
                store.save_round(ended)
        return list(store.rounds())


def _rejudged(
    loaded: LoadedRecipe, folder: Path, store: Store, info: ModelInfo, rounds: Sequence[Round]
) -> Iterator[Round]:
    # no observers: they report runs, and nothing is run here
    silent = replace(loaded, recipe=loaded.recipe.model_copy(update={"observers": []}))
    backend = Unopened(silent, folder, info)
    parts = assemble(silent, folder, store, backend)
    try:
        if any(key_of(override).startswith("backend.") for override in loaded.source.overrides):
            backend.open()  # refuses an option that makes it another model
        history = History()
        for ended in rounds:
            parts.load_adapter(history.adapter)
            with RoundContext(ended.number, loaded.recipe, parts, history) as context:
                unjudged = [_unjudged(attempt) for attempt in ended.attempts]
                attempts = decide(context, verify(context, unjudged))
            kept = tuple(failure for failure in ended.failures if failure.step != "verify")
            failures = (*kept, *context.all_failures())
            judged = replace(ended, attempts=tuple(attempts), failures=failures)
            yield judged
            # the adapter of the old run: its texts were made with it
            adapter = store.active_adapter(rounds[: ended.number])
            history = replace(history.after(judged), adapter=adapter)
        _refuse_unread(loaded, parts.prompts.rendered)
    finally:
        parts.close()


def _unjudged(attempt: Attempt) -> Attempt:
    """Return an attempt as it was before it was judged; one that never came so far is unchanged."""
    if attempt.decision in ("dropped", "failed"):
        return attempt
    kept = tuple(failure for failure in attempt.failures if failure.step != "verify")
    bare = replace(
        attempt, verdicts=(), failures=kept, decision=None, reason="", confidence=None, lowers=None
    )
    return replace(bare, chosen="draft")


class Unopened:
    """A backend that opens its model when it is first asked for something new.

    Stored completions and readings are replayed before a request comes here.
    """

    def __init__(self, loaded: LoadedRecipe, folder: Path, info: ModelInfo) -> None:
        self._loaded, self._folder, self._info = loaded, folder, info
        self._adapter: Adapter | None = None

    @cached_property
    def _opened(self) -> Backend:
        backend: Backend = build_component(
            self._loaded, "backend", self._loaded.recipe.backend, self._folder
        )
        try:
            # a StoreError, for it stops the run: a ModelError would be a failure of one detector
            otherwise = "use detectors that need no model"
            pinned = asdict(self._info)
            verify_model(pinned, backend.describe().sha256, otherwise, StoreError)
        except StoreError:
            backend.close()
            raise
        if self._adapter:
            backend.load_adapter(self._adapter)
        return backend

    def open(self) -> None:
        """Open the model. Raises StoreError if it is not the one that was stored."""
        self._opened.describe()

    def describe(self) -> ModelInfo:
        """Return the stored description of the model."""
        return self._info

    def generate(
        self, requests: Sequence[Request]
    ) -> "Iterator[tuple[int, Completion | RequestError]]":
        """Open the model and ask it."""
        return self._opened.generate(requests)

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> "list[tuple[float, ...] | RequestError]":
        """Open the model and ask it."""
        return self._opened.loglikelihood(pairs)

    def hidden_states(
        self, pairs: Sequence[Continuation], positions: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Open the model and ask it."""
        return self._opened.hidden_states(pairs, positions, layer)

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Open the model and ask it."""
        return self._opened.attentions(pairs)

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Load it if the model is open; else remember it until it is."""
        self._adapter = adapter
        return (
            self._opened.load_adapter(adapter)
            if "_opened" in self.__dict__
            else AdapterProof(adapter, 0.0)
        )

    def close(self) -> None:
        """Free the model if it was opened."""
        if "_opened" in self.__dict__:
            self._opened.close()
