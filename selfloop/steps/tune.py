"""The step tune: the tuner trains an adapter, and the backend loads it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfloop.guard import Failed, capture, impossible, validate_record
from selfloop.protocols import TuneContext, Tuner
from selfloop.records import Adapter, Attempt
from selfloop.steps.context import RoundContext
from selfloop.storage.recorder import TunersBackend
from selfloop.storage.run_folder import RunFolder


def tune(context: RoundContext, attempts: Sequence[Attempt]) -> Adapter | None:
    """Train an adapter on the beliefs so far and load it.

    Return None if the recipe has no tuner, it is not this round's turn, or the tuner made none.
    """
    spec, tuner = context.recipe.tuner, context.parts.tuner
    if spec is None or tuner is None or context.number % spec.every:
        return None
    context.start_step("tune", sum(attempt.decision == "belief" for attempt in attempts))
    before = context.backend.adapter  # to return to, if the tuner loads others and fails
    folder = RunFolder(context.parts.folder).adapter(context.number)
    lent = TunersBackend(context.backend)
    adapter = capture(
        "tune", tuner.name, lambda: _train_and_load(context, tuner.part, attempts, folder, lent)
    )
    if isinstance(adapter, Failed):
        context.note_failure(adapter.failure)
        adapter = None
    if adapter is None and lent.swapped:
        _load_again(context, before)
    return adapter


def _load_again(context: RoundContext, before: Adapter | None) -> None:
    """Load the adapter that was in effect before: a tuner without a result may have swapped it."""
    backend = context.backend
    loaded = capture("tune", backend.name, lambda: backend.load_adapter(before))
    if isinstance(loaded, Failed):
        context.note_failure(loaded.failure)


def _train_and_load(
    context: RoundContext,
    tuner: Tuner,
    attempts: Sequence[Attempt],
    folder: Path,
    backend: TunersBackend,
) -> Adapter | None:
    # It may be there: a tune that was killed has left its checkpoint in it.
    folder.mkdir(parents=True, exist_ok=True)
    tune_context = TuneContext(
        context.number,
        tuple(attempts),
        context.history.with_attempts(attempts),
        folder,
        backend,
        context.prompt,
        context.seed("tune"),
        context.on_training_batch,
    )
    trained = tuner.tune(tune_context)
    if trained is None:
        return None
    # The round is the loop's to say, and a path inside the run's folder becomes relative to it.
    valid = replace(validate_record(trained, Adapter), round=context.number)
    adapter = context.parts.at_home(valid)
    if why := impossible(adapter):
        raise ValueError(why)
    try:
        context.parts.load_adapter(adapter)
    except Exception:
        # The backend may be left with another adapter, or with none.
        context.parts.load_adapter(context.history.adapter)
        raise
    return adapter
