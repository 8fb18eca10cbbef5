"""One calibrated probability out of the detectors listed before it, fitted without labels.

An answer that the model gives again is likelier true (Wang et al. 2022, arXiv 2203.11171). So the
weights are those with which the detectors, shown one half of a question's samples, best predict how
much of the other half agrees with the answer. That ranks answers, but does not say how likely each
is. For the level there are two estimates that err in opposite ways. The model's probability of the
answer's meaning, at temperature 1, is about right (Kadavath et al. 2022, arXiv 2207.05221), but
loses odd wordings and the tail. The share of samples that agree, drawn at a lower temperature, is
too high. The result is scaled to their geometric mean (a logarithmic opinion pool, Genest & Zidek
1986).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from selfloop import Claim, Component, Verdict, VerifyContext, hookimpl
from selfloop.errors import RecipeError
from selfloop.storage.run_folder import RunFolder
from selfloop.text.answers import declines

from ._claims import count_agreeing
from ._state import damaged

if TYPE_CHECKING:
    from selfloop_plugins._shared.calibration import Calibration, Confidences

# the fit predicts agreement, so agreement is no evidence: it would predict itself, not truth
TARGET = "agreement"
FITTED_ON_IT = "the calibration was fitted on this question's gold answer"
TOO_FEW = "too few answers yet to weigh detectors"


class Combined:
    """Confidence is a regularised logistic regression over the verdicts before it.

    The verdict of `agreement` is left out, because the fit predicts it. List this detector after
    the others. It is fitted on the first batch with `min_answers` answers that have samples, on the
    model's own agreement, and scaled to the geometric mean of the `anchors`. The fit is stored with
    the run, in calibration.json; until there is one, the confidence is that mean. `calibration`
    names such a file to use instead: that of another run, or of `selfloop calibrate`, which fits it
    on labels. It abstains where no detector before it gave a confidence.

    A claim without samples has the confidence of the detector `single`. If the batch has enough
    claims with samples too, a second fit brings the detectors that need none to the scale of the
    first; it is stored as well, in calibration-single.json.
    """

    def __init__(
        self,
        *,
        folder: Path,
        anchors: tuple[str, ...] = ("meaning_probability", "agreement"),
        single: str = "sequence_probability",
        min_answers: Annotated[int, Ge(10)] = 30,
        calibration: Path | None = None,
    ) -> None:
        self._file = RunFolder(folder).calibration
        self._single_file = RunFolder(folder).single_calibration
        self._anchors = anchors
        self._single = single
        self._min_answers = min_answers
        self._chosen = _read(calibration) if calibration else None

    def verify(self, claims: Sequence[Claim], context: VerifyContext) -> list[Verdict]:
        """Return one verdict for each claim; abstain where no detector gave a confidence."""
        confidences = [_confidences(claim.verdicts) for claim in claims]
        if self._chosen:
            return _judged(claims, confidences, self._chosen)
        sampled = [i for i, claim in enumerate(claims) if claim.samples]
        single = [i for i, claim in enumerate(claims) if not claim.samples]
        sampled_claims = [claims[i] for i in sampled]
        of_sampled = [confidences[i] for i in sampled]
        calibration = self._fitted(sampled_claims, of_sampled, context) if sampled else None
        if calibration is None:
            of_samples = [self._unweighed(by_name) for by_name in of_sampled]
        else:
            of_samples = _judged(sampled_claims, of_sampled, calibration)
        verdicts = dict(zip(sampled, of_samples, strict=True))
        if single:
            by_one_answer = self._single_fitted(sampled_claims, of_sampled, calibration, context)
            of_single = [confidences[i] for i in single]
            if by_one_answer is None:
                of_one_answer = [self._single_unweighed(by_name) for by_name in of_single]
            else:
                of_one_answer = _judged([claims[i] for i in single], of_single, by_one_answer)
            verdicts |= zip(single, of_one_answer, strict=True)
        return [verdicts[i] for i in range(len(claims))]

    def _single_unweighed(self, confidences: "Confidences") -> Verdict:
        """Return the verdict on a claim without samples, without a fit: that of `single`."""
        confidence = confidences.get(self._single)
        if confidence is None:
            return Verdict("combined", None, f"no samples, and {self._single} gave no confidence")
        return Verdict("combined", confidence, f"no samples: {self._single}")

    def _unweighed(self, confidences: "Confidences") -> Verdict:
        """Return the verdict without a fit: the mean of the anchors."""
        mean = self._anchor_mean(confidences)
        names = " and ".join(self._anchors)
        if mean is None:
            return Verdict("combined", None, f"{TOO_FEW}, and not all of {names} to go by")
        return Verdict("combined", mean, f"{TOO_FEW}: the mean of {names}")

    def _anchor_mean(self, confidences: "Confidences") -> float | None:
        """Return the geometric mean of the anchors; None where one abstained."""
        values = [confidences[name] for name in self._anchors if name in confidences]
        if not values or len(values) < len(self._anchors):
            return None
        return math.prod(values) ** (1 / len(values))

    def _fitted(
        self, claims: Sequence[Claim], confidences: "Sequence[Confidences]", context: VerifyContext
    ) -> "Calibration | None":
        """Return the stored fit, or a new one, which is stored; None with too few answers."""
        detectors = _detectors(confidences)
        if self._file.is_file():
            stored = _stored(self._file)
            # a detector that was added since has no weight yet: then fit anew
            if set(detectors) <= set(stored.detectors):
                return stored
        usable = [i for i, claim in enumerate(claims) if _is_usable(claim) and confidences[i]]
        if len(usable) < self._min_answers:
            return None
        calibration = _fit_on_agreement(detectors, [claims[i] for i in usable], context)
        calibration = self._scaled(calibration, [confidences[i] for i in usable])
        calibration.save(self._file)
        return calibration

    def _single_fitted(
        self,
        claims: Sequence[Claim],
        confidences: "Sequence[Confidences]",
        calibration: "Calibration | None",
        context: VerifyContext,
    ) -> "Calibration | None":
        """Return the stored fit for claims without samples, or a new one, which is stored.

        It is fitted on claims with samples: the detectors that need none predict the confidence
        that all detectors give together. None with too few of them.
        """
        if self._single_file.is_file():
            return _stored(self._single_file)
        usable = [i for i, claim in enumerate(claims) if _is_usable(claim) and confidences[i]]
        if calibration is None or len(usable) < self._min_answers:
            return None
        target = calibration([confidences[i] for i in usable])
        without_samples = [replace(claims[i], samples=(), verdicts=()) for i in usable]
        by_one_answer = list(map(_confidences, context.earlier_verdicts(without_samples)))
        detectors = _detectors(by_one_answer)
        if not detectors:
            return None
        # numpy is not for those who only list the plugins
        from selfloop_plugins._shared.calibration import fit

        fitted = f"{len(usable)} answers' confidence from samples"
        single = fit(detectors, by_one_answer, target, fitted)
        single.save(self._single_file)
        return single

    def _scaled(
        self, calibration: "Calibration", confidences: "Sequence[Confidences]"
    ) -> "Calibration":
        """Return the fit scaled to the mean of the anchors, where enough answers have that."""
        means: list[float] = []
        of_means: list[Confidences] = []
        for by_name in confidences:
            mean = self._anchor_mean(by_name)
            if mean is not None:
                means.append(mean)
                of_means.append(by_name)
        if len(means) < self._min_answers:
            return calibration
        anchors = " and ".join(self._anchors)
        fitted = f"{calibration.fitted}, scaled to the mean of {anchors}"
        return replace(calibration.towards(means, of_means), fitted=fitted)


def _judged(
    claims: Sequence[Claim], confidences: "Sequence[Confidences]", calibration: "Calibration"
) -> list[Verdict]:
    """Return the verdicts of a fit; it abstains on the questions that it was fitted on by label."""
    # a label that was fitted on must not be judged: nobody should measure the fit on it
    seen = frozenset(calibration.questions)
    probabilities = calibration(confidences).tolist()
    verdicts = []
    for claim, by_name, probability in zip(claims, confidences, probabilities, strict=True):
        if claim.question.id in seen:
            verdicts.append(Verdict("combined", None, FITTED_ON_IT))
        else:
            verdicts.append(_weighed(by_name, probability, calibration))
    return verdicts


def _confidences(verdicts: Sequence[Verdict]) -> dict[str, float]:
    return {v.detector: v.confidence for v in verdicts if v.confidence is not None}


def _detectors(confidences: "Sequence[Confidences]") -> list[str]:
    """Return the detectors that gave any confidence, in the order seen, without the target."""
    names: dict[str, None] = {}
    for by_name in confidences:
        names.update(dict.fromkeys(by_name))
    names.pop(TARGET, None)  # see TARGET
    return list(names)


def _is_usable(claim: Claim) -> bool:
    """Return whether a claim can be fitted on: a draft with samples to hold out, and an answer."""
    has_halves = len(claim.samples) > 1
    return claim.candidate == "draft" and has_halves and not declines(claim.answer.text)


def _fit_on_agreement(
    detectors: Sequence[str], claims: Sequence[Claim], context: VerifyContext
) -> "Calibration":
    """Fit on halves of the samples.

    The detectors' confidences, given every second sample, predict how many of the others agree.
    """
    # numpy is not for those who only list the plugins
    from selfloop_plugins._shared.calibration import fit

    confidences: list[Confidences] = []
    shares: list[float] = []
    # both ways, so that every sample is evidence once and target once
    for half in (0, 1):
        seen = [replace(claim, samples=claim.samples[half::2], verdicts=()) for claim in claims]
        confidences += map(_confidences, context.earlier_verdicts(seen))
        held_out = [replace(claim, samples=claim.samples[1 - half :: 2]) for claim in claims]
        shares += [count_agreeing(claim) / len(claim.samples) for claim in held_out]
    fitted = f"{len(claims)} answers' agreement with samples held out"
    return fit(detectors, confidences, shares, fitted)


def _weighed(confidences: "Confidences", probability: float, calibration: "Calibration") -> Verdict:
    """Return the verdict with a fit; it abstains where none of its detectors gave a confidence."""
    names = [name for name in calibration.detectors if name in confidences]
    if not names:
        return Verdict("combined", None, "no detector could tell")
    parts = ", ".join(f"{name} {confidences[name]:.2f}" for name in names)
    return Verdict("combined", probability, f"from {parts}")


def _read(path: Path) -> "Calibration":
    # numpy is not for those who only list the plugins
    from selfloop_plugins._shared.calibration import read_calibration

    return read_calibration(path)


def _stored(path: Path) -> "Calibration":
    """Return the run's own fit.

    Raises StoreError, which stops the run: without its fit it would decide otherwise.
    """
    try:
        return _read(path)
    except RecipeError as error:
        raise damaged(path, "the detector combined") from error


def check(*, calibration: Path | None = None, **_others: object) -> None:
    """Raise RecipeError for a calibration file that cannot be read."""
    if calibration:
        _read(calibration)


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "one calibrated probability out of the verdicts before it"
    return [Component("combined", Combined, doc=doc, check=check)]
