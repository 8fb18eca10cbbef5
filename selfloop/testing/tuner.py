"""What a tuner must do."""

import hashlib
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfloop.errors import SelfloopError
from selfloop.protocols import Tuning
from selfloop.records import Adapter
from selfloop.testing.contract import Contract, checked
from selfloop.testing.scripted import Limited
from selfloop.testing.told import tuning


class Killed(BaseException):
    """Stands for the end of the process in the middle of a tune."""


class TunerContract(Contract):
    """Subclass, set `component` (and `options`), run pytest; return from `told` what your tuner can learn from."""

    methods = ("tune",)

    def tuning(self, folder: Path) -> Tuning:
        """Return what it is told: a round of twelve attempts, and a scripted backend."""
        return tuning(folder, Limited({*self.component.needs, "adapters"}), self.component.prompts)

    def tune(self, told: Tuning, tuner: Any = None) -> Adapter | None:
        """Return the adapter of a new tuner, or the one given, as a run would take it; None where there is none."""
        told.folder.mkdir(parents=True, exist_ok=True)
        before = deepcopy((told.attempts, told.past))
        try:
            made = (tuner or self.build()).tune(told)
        except SelfloopError as error:
            assert str(error).strip(), "tune() refuses without saying why"
            made = None
        assert (told.attempts, told.past) == before, "tune() changed the attempts, or the past"
        return None if made is None else checked("tune()", made, Adapter)

    def test_the_adapter_is_there(self, tmp_path: Path) -> None:
        """Return an adapter whose file lies whole in the tuner's own folder, with its right sha256; or none."""
        told = self.tuning(tmp_path / "own")
        if made := self.tune(told):
            _whole(made, told.folder)
            told.backend.load_adapter(made)

    def test_it_may_find_nothing_to_learn(self, tmp_path: Path) -> None:
        """Return None, or raise a SelfloopError that says why, where nothing is believed or declined."""
        told = self.tuning(tmp_path / "own")
        self.tune(replace(told, attempts=(), past=replace(told.past, outcomes=())))

    def test_it_tells_how_far_it_is(self, tmp_path: Path) -> None:
        """Call `tell(done, of, loss)` with done from 1 to of, and a loss that is a number."""
        heard: list[tuple[int, int, float]] = []
        self.tune(replace(self.tuning(tmp_path / "own"), tell=lambda *told: heard.append(told)))
        for done, of, loss in heard:
            assert 1 <= done <= of, f"tell({done}, {of}, {loss}): done goes from 1 to {of}"
            assert math.isfinite(loss), f"tell({done}, {of}, {loss}): the loss is no number"
        assert [one[0] for one in heard] == sorted(one[0] for one in heard), (
            "tell() counts backwards"
        )

    def test_the_same_is_learnt_again(self, tmp_path: Path) -> None:
        """Return the same adapter for the same `tuning`, from a tuner that has tuned before too: resume rests on it."""
        tuner = self.build()
        found = [
            self._made(tmp_path / name, one)
            for name, one in (("a", tuner), ("b", tuner), ("c", None))
        ]
        assert len(set(found)) == 1, f"the same tuning gave adapters of sha256 {found}"

    def test_it_outlives_a_kill(self, tmp_path: Path) -> None:
        """After a kill in the middle, in the same folder, return what a tune that was not disturbed returns."""
        whole = self._made(tmp_path / "whole")
        told = self.tuning(tmp_path / "killed")
        for batch in (1, 2):
            calls: list[int] = []
            self._killed(told, calls, batch)
        assert self._made(told.folder) == whole, (
            "after a kill the adapter in its folder is another, or half of one"
        )

    def _made(self, folder: Path, tuner: Any = None) -> str | None:
        made = self.tune(self.tuning(folder), tuner)
        if made is None:
            return None
        _whole(made, folder)
        return made.sha256

    def _killed(self, told: Tuning, calls: list[int], batch: int) -> None:
        def tell(*heard: Any) -> None:
            calls.append(1)
            if len(calls) == batch:
                raise Killed

        try:
            self.tune(replace(told, tell=tell))
        except Killed:
            return


def _whole(adapter: Adapter, folder: Path) -> None:
    path = Path(adapter.path)
    assert path.is_file(), f"the adapter's file is not there: {path}"
    assert path.resolve().is_relative_to(folder.resolve()), (
        f"{path} is not in the tuner's folder: runs may be moved"
    )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert adapter.sha256 == found, (
        f"the adapter says sha256 {adapter.sha256}, but that of {path} is {found}"
    )
    assert math.isfinite(adapter.scale), f"the adapter's scale is {adapter.scale}, no number"
