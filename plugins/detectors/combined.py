"""The combined verdict: one calibrated probability out of what the detectors listed before it say,
without labels.

What the model says again is likelier true (Wang et al. 2022, arXiv 2203.11171): the weights are
those with which the detectors, shown one half of a question's samples, foretell how much of the
other half agrees with the answer. That says which answers are likelier true than others, but not
how likely. For that there are two witnesses that err in opposite ways. The model's probability of
the answer's meaning, at temperature 1, is about right (Kadavath et al. 2022, arXiv 2207.05221) but
loses what goes to odd wordings and to the tail; the share of samples that agree, drawn at a lower
temperature, is too high. The result is scaled to their geometric mean (a logarithmic opinion pool,
Genest & Zidek 1986).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from selfloop import Claim, Component, Judging, Verdict, hookimpl
from selfloop.errors import RecipeError
from selfloop.storage.run_folder import RunFolder
from selfloop.text.answers import declines

from ._claims import agreeing
from ._state import damaged

if TYPE_CHECKING:
    from selfloop_plugins._shared.calibration import Calibration, Said

# what the fit foretells is no evidence: it would foretell itself, and not truth
TARGET = "agreement"
SEEN = "the calibration was fitted on this question's gold answer"


class Combined:
    """Confidence is a regularised logistic regression over the verdicts before it, but for
    agreement's own.

    List it after its detectors. It is fitted on the first batch with `least` answers that have
    samples, on the model's own agreement, and scaled to the geometric mean of the `anchors`; then
    it is stored with the run, in calibration.json. Until then it is that mean. `calibration` names
    such a file to use instead: of another run, or of `selfloop calibrate`, which fits it on labels.
    """

    def __init__(
        self,
        *,
        folder: Path,
        anchors: tuple[str, ...] = ("meaning_probability", "agreement"),
        least: Annotated[int, Ge(10)] = 30,
        calibration: Path | None = None,
    ) -> None:
        self._file, self._anchors, self._least = RunFolder(folder).calibration, anchors, least
        self._given = _read(calibration) if calibration else None

    def verify(self, claims: Sequence[Claim], judging: Judging) -> list[Verdict]:
        """Return one verdict for each claim; abstain where no detector said anything."""
        said = [_said(claim.verdicts) for claim in claims]
        found = self._given or self._fitted(claims, said, judging)
        if found is None:
            return [self._unweighed(each) for each in said]
        seen, chances = frozenset(found.questions), found(said).tolist()
        return [
            Verdict("combined", None, SEEN)
            if claim.question.id in seen
            else _verdict(each, chance, found)
            for claim, each, chance in zip(claims, said, chances, strict=True)
        ]

    def _unweighed(self, said: "Said") -> Verdict:
        pooled, names = self._pool(said), " and ".join(self._anchors)
        if pooled is None:
            return Verdict(
                "combined",
                None,
                f"too few answers yet to weigh detectors, and not all of {names} to go by",
            )
        return Verdict(
            "combined", pooled, f"too few answers yet to weigh detectors: the mean of {names}"
        )

    def _pool(self, said: "Said") -> float | None:
        """Return the geometric mean of the anchors; None where one did not tell."""
        told = [said[name] for name in self._anchors if name in said]
        return (
            math.prod(told) ** (1 / len(told)) if told and len(told) == len(self._anchors) else None
        )

    def _fitted(
        self, claims: Sequence[Claim], said: "Sequence[Said]", judging: Judging
    ) -> "Calibration | None":
        detectors = [
            name for name in dict.fromkeys(n for each in said for n in each) if name != TARGET
        ]
        if self._file.is_file():
            stored = _stored(self._file)
            if set(detectors) <= set(stored.detectors):
                return stored
        good = [i for i, claim in enumerate(claims) if _tells(claim) and said[i]]
        if len(good) < self._least:
            return None
        found = _from_agreement(detectors, [claims[i] for i in good], judging)
        pooled = [(said[i], pool) for i in good if (pool := self._pool(said[i])) is not None]
        if len(pooled) >= self._least:
            found = found.towards([pool for _, pool in pooled], [each for each, _ in pooled])
            found = replace(
                found, fitted=f"{found.fitted}, scaled to the mean of {' and '.join(self._anchors)}"
            )
        found.write(self._file)
        return found


def _said(verdicts: Sequence[Verdict]) -> dict[str, float]:
    return {v.verifier: v.confidence for v in verdicts if v.confidence is not None}


def _tells(claim: Claim) -> bool:
    return claim.candidate == "draft" and len(claim.samples) > 1 and not declines(claim.answer.text)


def _from_agreement(
    detectors: Sequence[str], claims: Sequence[Claim], judging: Judging
) -> "Calibration":
    """Fit on halves: what the detectors make of every second sample foretells how many of the others agree."""
    said: list[Said] = []
    shares: list[float] = []
    for half in (0, 1):
        seen = [replace(claim, samples=claim.samples[half::2], verdicts=()) for claim in claims]
        said += map(_said, judging.before(seen))
        held = [replace(claim, samples=claim.samples[1 - half :: 2]) for claim in claims]
        shares += [agreeing(claim) / len(claim.samples) for claim in held]
    from selfloop_plugins._shared.calibration import fit

    return fit(detectors, said, shares, f"{len(claims)} answers' agreement with samples held out")


def _verdict(said: "Said", chance: float, found: "Calibration") -> Verdict:
    heard = [name for name in found.detectors if name in said]
    if not heard:
        return Verdict("combined", None, "no detector could tell")
    return Verdict(
        "combined", chance, "from " + ", ".join(f"{name} {said[name]:.2f}" for name in heard)
    )


def _read(path: Path) -> "Calibration":
    # numpy is not for those who only want to see what there is
    from selfloop_plugins._shared.calibration import read

    return read(path)


def _stored(path: Path) -> "Calibration":
    """Return the run's own fit.

    Raises StoreError, which stops the run: without it the run would decide otherwise.
    """
    try:
        return _read(path)
    except RecipeError as error:
        raise damaged(path, "the verifier combined") from error


def check(
    *, calibration: Path | None = None, anchors: tuple[str, ...] = (), least: int = 0
) -> None:
    """Raise for a calibration file that cannot be read."""
    if calibration:
        _read(calibration)


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    return [
        Component(
            "combined",
            Combined,
            doc="one calibrated probability out of the verdicts before it",
            check=check,
        )
    ]
