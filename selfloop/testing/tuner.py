"""The requirements on a tuner."""

import hashlib
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfloop.errors import SelfloopError
from selfloop.protocols import TuneContext
from selfloop.records import Adapter
from selfloop.testing.contexts import tune_context
from selfloop.testing.contract import Contract, check_record
from selfloop.testing.scripted import Limited


class Killed(BaseException):
    """Stands for the end of the process in the middle of a tune."""


class TunerContract(Contract):
    """Subclass, set `component` (and `options`), run pytest.

    Override `tune_context` if your tuner needs other attempts or another backend to learn from.
    """

    methods = ("tune",)

    def tune_context(self, folder: Path) -> TuneContext:
        """Return its context: a round of twelve attempts, and a scripted backend."""
        return tune_context(
            folder, Limited({*self.component.needs, "adapters"}), self.component.prompts
        )

    def tune(self, context: TuneContext, tuner: Any = None) -> Adapter | None:
        """Return the adapter of `tuner`, or of a new one, as a run takes it; or None."""
        context.folder.mkdir(parents=True, exist_ok=True)
        # the attempts are shared with the rest of the run
        before = deepcopy((context.attempts, context.history))
        adapter = None
        try:
            adapter = (tuner or self.build()).tune(context)
        except SelfloopError as error:
            assert str(error).strip(), "tune() refuses without saying why"
        unchanged = (context.attempts, context.history) == before
        assert unchanged, "tune() changed the attempts, or the past"
        return None if adapter is None else check_record("tune()", adapter, Adapter)

    def test_the_adapter_is_there(self, tmp_path: Path) -> None:
        """Return an adapter with its sha256, whose file is complete in the tuner's folder.

        None is fine too.
        """
        context = self.tune_context(tmp_path / "own")
        if adapter := self.tune(context):
            _assert_file(adapter, context.folder)
            context.backend.load_adapter(adapter)

    def test_it_may_find_nothing_to_learn(self, tmp_path: Path) -> None:
        """Return None or raise a SelfloopError with a reason if there is nothing to learn."""
        context = self.tune_context(tmp_path / "own")
        without_outcomes = replace(context.history, outcomes=())
        self.tune(replace(context, attempts=(), history=without_outcomes))

    def test_it_tells_how_far_it_is(self, tmp_path: Path) -> None:
        """Call `on_batch(done, of, loss)` with done from 1 to of, and a loss that is a number."""
        calls: list[tuple[int, int, float]] = []
        context = self.tune_context(tmp_path / "own")
        self.tune(replace(context, on_batch=lambda *call: calls.append(call)))
        for done, of, loss in calls:
            assert 1 <= done <= of, f"on_batch({done}, {of}, {loss}): done goes from 1 to {of}"
            assert math.isfinite(loss), f"on_batch({done}, {of}, {loss}): the loss is no number"
        batches = [done for done, _, _ in calls]
        assert batches == sorted(batches), "on_batch() counts backwards"

    def test_the_same_is_learnt_again(self, tmp_path: Path) -> None:
        """Return the same adapter in the same context, also if the tuner has tuned before.

        A resumed run relies on it.
        """
        tuner = self.build()
        # the same tuner twice, and a new one
        digests = [
            self._tuned_digest(tmp_path / "a", tuner),
            self._tuned_digest(tmp_path / "b", tuner),
            self._tuned_digest(tmp_path / "c", None),
        ]
        assert len(set(digests)) == 1, f"the same tuning gave adapters of sha256 {digests}"

    def test_it_outlives_a_kill(self, tmp_path: Path) -> None:
        """Return the same adapter in the same folder after a kill in the middle of a tune."""
        undisturbed = self._tuned_digest(tmp_path / "whole")
        context = self.tune_context(tmp_path / "killed")
        # the second kill hits a tune that has resumed from a checkpoint, if the tuner has any
        for batch in (1, 2):
            self._tune_killed_at(context, batch)
        assert self._tuned_digest(context.folder) == undisturbed, (
            "after a kill the adapter in its folder is another, or half of one"
        )

    def _tuned_digest(self, folder: Path, tuner: Any = None) -> str | None:
        adapter = self.tune(self.tune_context(folder), tuner)
        if adapter is None:
            return None
        _assert_file(adapter, folder)
        return adapter.sha256

    def _tune_killed_at(self, context: TuneContext, batch: int) -> None:
        calls = 0

        def on_batch(done: int, of: int, loss: float) -> None:
            nonlocal calls
            calls += 1
            if calls == batch:
                raise Killed

        try:
            self.tune(replace(context, on_batch=on_batch))
        except Killed:
            return


def _assert_file(adapter: Adapter, folder: Path) -> None:
    path = Path(adapter.path)
    assert path.is_file(), f"the adapter's file is not there: {path}"
    assert path.resolve().is_relative_to(folder.resolve()), (
        f"{path} is not in the tuner's folder: runs may be moved"
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert adapter.sha256 == digest, (
        f"the adapter says sha256 {adapter.sha256}, but that of {path} is {digest}"
    )
    assert math.isfinite(adapter.scale), f"the adapter's scale is {adapter.scale}, no number"
