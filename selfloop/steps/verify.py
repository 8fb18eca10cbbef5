"""The step verify: each detector judges each answer, and sees the verdicts of those before it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from selfloop.config.assembly import NamedComponent
from selfloop.guard import Failed, capture_each, impossible_failure, validate_record
from selfloop.protocols import Detector, VerifyContext
from selfloop.records import Attempt, Claim, Failure, Verdict
from selfloop.steps.claims import claims_of
from selfloop.steps.context import RoundContext

Detectors = Sequence[NamedComponent[Detector]]
Results = tuple[Verdict | Failure, ...]  # one of each detector, in the order of the recipe


def verify(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Let each detector judge each draft, and each revision that is another answer.

    No detector sees the critique.
    """
    indices: list[int] = []  # of the attempt of each claim
    claims: list[Claim] = []
    for i, attempt in enumerate(attempts):
        if attempt.live:
            of_attempt = list(claims_of(attempt))
            claims += of_attempt
            indices += [i] * len(of_attempt)
    context.start_step("verify", sum(attempt.live for attempt in attempts))
    detectors = context.parts.detectors
    context.set_progress(0, len(detectors) * len(claims), "verdicts")
    judged = judge(context, detectors, claims, context.advance_progress)
    attempts_judged = list(attempts)
    for i, results in zip(indices, judged, strict=True):
        for result in results:
            attempts_judged[i] = _with_result(attempts_judged[i], result)
    return attempts_judged


def _with_result(attempt: Attempt, result: Verdict | Failure) -> Attempt:
    if isinstance(result, Failure):
        return attempt.failed(result, fatal=False)
    return replace(attempt, verdicts=(*attempt.verdicts, result))


def judge(
    context: RoundContext,
    detectors: Detectors,
    claims: Sequence[Claim],
    on_verdicts: Callable[[int], None] = lambda count: None,
) -> list[Results]:
    """Return the results of all detectors for each claim.

    They judge one after the other. Each sees the verdicts of the detectors before it in the claims,
    and may have these detectors judge other claims (`EarlierDetectors`). `on_verdicts` gets the
    number of verdicts that came.
    """
    results: list[Results] = [() for _ in claims]
    for position, detector in enumerate(detectors):
        earlier = EarlierDetectors(context, detectors[:position])
        verify_context = context.verify_context("verify", detector.name, detector.reads, earlier)
        seen = [
            replace(claim, verdicts=_verdicts_in(before))
            for claim, before in zip(claims, results, strict=True)
        ]
        call = partial(_call_detector, detector.part, verify_context)
        verdicts = capture_each("verify", detector.name, call, seen, Verdict, context.note_failure)
        # a detector that fails on a claim leaves a failure there, and the next one sees no verdict
        for i, verdict in enumerate(verdicts):
            checked = _check_verdict(detector.name, claims[i], verdict)
            results[i] = (*results[i], checked)
        on_verdicts(len(claims))
    return results


@dataclass(frozen=True)
class EarlierDetectors:
    """The detectors listed before one, which it may call on claims of its own.

    It gets this as `VerifyContext.earlier_verdicts`.

    The call goes through `judge`, so these detectors may consult those before them in turn. That
    ends, for the list gets shorter each time.
    """

    context: RoundContext
    detectors: Detectors

    def __call__(self, claims: Sequence[Claim]) -> list[tuple[Verdict, ...]]:
        """Return the verdicts on each claim; a detector that fails gives none."""
        # made by a plugin, so checked before other plugins get them
        valid = [validate_record(claim, Claim) for claim in claims]
        return [_verdicts_in(results) for results in judge(self.context, self.detectors, valid)]


def _call_detector(
    detector: Detector, verify_context: VerifyContext, claims: Sequence[Claim]
) -> Sequence[Verdict] | Mapping[Claim, Verdict]:
    return detector.verify(claims, verify_context)


def _verdicts_in(results: Results) -> tuple[Verdict, ...]:
    return tuple(result for result in results if isinstance(result, Verdict))


def _check_verdict(name: str, claim: Claim, verdict: Verdict | Failed) -> Verdict | Failure:
    """Return the verdict under the detector's name in the recipe, or the failure in its place."""
    if isinstance(verdict, Failed):
        return verdict.failure
    if failure := impossible_failure("verify", name, verdict):
        return failure
    return replace(verdict, detector=name, candidate=claim.candidate)
