"""Probes: a logistic regression on the model's last hidden states foretells what sampling would
have told.

Nothing but the model's own answers is needed: the targets are its agreement with itself (EliCal,
arXiv 2510.17509) or its semantic entropy (Kossen et al. 2024, arXiv 2406.15927). With labels, up to
some thousand, a probe goes on from there (EliCal's second stage).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge

from selfloop import Claim, Completion, Component, Judging, Question, Verdict, data, hookimpl
from selfloop.config.prompts import is_open
from selfloop.errors import RecipeError, RequestError
from selfloop.records import Continuation
from selfloop.storage import atomic
from selfloop.storage.run_folder import RunFolder

from ._claims import DECLINED, Abstain, agreeing, meaning, scattered
from ._state import damaged
from .semantic_entropy import DiscreteSemanticEntropy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FOLDS = 5


class Probe:
    """Confidence is what one of five heads says: the one that has not seen the question. The
    others' folds taught it.

    Fitted on the first batch with `least` answers that have samples, and stored with the run; until
    then it abstains. `labels`, JSONL of {"question", "answer", "right"}, takes it on from what the
    model's own samples taught it. `ridge` is the strength of the normal prior on the weights of
    standardised states.
    """

    name: ClassVar[str]
    place: ClassVar[Literal[0, -1]]

    def __init__(
        self,
        *,
        folder: Path,
        least: Annotated[int, Ge(20)] = 200,
        ridge: Annotated[float, Ge(0.001)] = 1000.0,
        labels: Path | None = None,
    ) -> None:
        self._file, self._least, self._ridge = RunFolder(folder).probe(self.name), least, ridge
        self._labels = _labelled(labels) if labels else []

    def target(self, claims: Sequence[Claim]) -> "Floats":
        """Return what is to be foretold of each claim, in [0, 1]: the share of samples that agree."""
        import numpy as np

        return np.array([agreeing(claim) / len(claim.samples) for claim in claims])

    def verify(self, claims: Sequence[Claim], judging: Judging) -> list[Verdict]:
        """Return one verdict for each claim; all states are read in one call."""
        states = self._states(claims, judging)
        heads = self._heads(claims, states, judging)
        return [
            self._judged(claim, state, heads) for claim, state in zip(claims, states, strict=True)
        ]

    def _judged(self, claim: Claim, state: "Floats | str", heads: "list[Floats]") -> Verdict:
        from selfloop_plugins._shared.calibration import sigmoid

        if isinstance(state, str):
            return Verdict(self.name, None, state)
        if not heads:
            return Verdict(
                self.name, None, f"fewer than {self._least} answers with samples to learn from"
            )
        head = heads[_fold(claim.question)]
        if len(head) != len(state) + 1:
            return Verdict(self.name, None, "the probe was fitted on another model")
        return Verdict(
            self.name, float(sigmoid(head[0] + head[1:] @ state)), "from the hidden state"
        )

    def _states(self, claims: Sequence[Claim], judging: Judging) -> "list[Floats | str]":
        """Return the state of each claim, or why there is none."""
        asked = [i for i, claim in enumerate(claims) if meaning(claim.answer.text)]
        found: list[Floats | str] = [DECLINED] * len(claims)
        read = judging.backend.hidden_states(
            [_pair(claims[i], judging) for i in asked], (self.place,)
        )
        for i, state in zip(asked, read, strict=True):
            found[i] = str(state) if isinstance(state, RequestError) else state[0].astype("float64")
        return found

    def _heads(
        self, claims: Sequence[Claim], states: "Sequence[Floats | str]", judging: Judging
    ) -> "list[Floats]":
        """Return the stored heads, or fit them; none if there is too little to fit on."""
        import numpy as np

        if self._file.is_file():
            return self._stored()
        drafts = [c if c.candidate == "draft" and len(c.samples) > 1 else None for c in claims]
        good = [(c, s) for c, s in zip(drafts, states, strict=True) if c and not isinstance(s, str)]
        if len(good) < self._least:
            return []
        own = [claim for claim, _ in good]
        heads = self._fitted(own, [state for _, state in good], self.target(own), None)
        if self._labels:
            told = [claim for claim, _ in self._labels]
            both = zip(told, self._states(told, judging), self._labels, strict=True)
            rows = [
                (claim, state, right)
                for claim, state, (_, right) in both
                if not isinstance(state, str)
            ]
            given, seen, right = zip(*rows, strict=True)
            heads = self._fitted(given, seen, np.array(right, float), heads)
        atomic.write_text(self._file, json.dumps([head.tolist() for head in heads]))
        return heads

    def _stored(self) -> "list[Floats]":
        """Return the run's own heads.

        Raises StoreError, which stops the run: it would decide otherwise without.
        """
        import numpy as np

        try:
            heads = [
                np.array(head, float) for head in json.loads(self._file.read_text(encoding="utf-8"))
            ]
        except (OSError, ValueError, TypeError) as error:
            raise damaged(self._file, f"the verifier {self.name}") from error
        shapes = {head.shape for head in heads}
        is_whole = (
            len(heads) == FOLDS and len(shapes) == 1 and heads[0].ndim == 1 and len(heads[0]) > 1
        )
        if not is_whole or not all(np.isfinite(head).all() for head in heads):
            raise damaged(self._file, f"the verifier {self.name}")
        return heads

    def _fitted(
        self,
        claims: Sequence[Claim],
        states: "Sequence[Floats]",
        target: "Floats",
        prior: "list[Floats] | None",
    ) -> "list[Floats]":
        import numpy as np

        folds, seen = np.array([_fold(claim.question) for claim in claims]), np.array(states)
        kept = [folds != k if (folds != k).any() else folds == k for k in range(FOLDS)]
        starts = prior or [np.zeros(seen.shape[1] + 1)] * FOLDS
        return [
            _head(seen[own], target[own], self._ridge, start)
            for own, start in zip(kept, starts, strict=True)
        ]


def _head(states: "Floats", target: "Floats", ridge: float, prior: "Floats") -> "Floats":
    """Return (intercept, weights) of a logistic regression on standardised states; `prior` is such a head too."""
    import numpy as np
    from selfloop_plugins._shared.calibration import logistic

    centre, spread = states.mean(0), np.maximum(states.std(0), 1e-6)
    given = (states - centre) / spread
    found, intercept = logistic(given, target, ridge, prior=prior[1:] * spread, least=-50.0)
    weights = found / spread
    return np.concatenate([[intercept - weights @ centre], weights])


class QuestionProbe(Probe):
    """P(IK): is this a question that the model knows the answer to (Kadavath et al.

    2022, arXiv 2207.05221).
    """

    name, place = "question_probe", 0


class AnswerProbe(Probe):
    """Is this answer one that the model would give again (cf.

    SAPLMA, Azaria & Mitchell 2023, arXiv 2304.13734).
    """

    name, place = "answer_probe", -1


class EntropyProbe(Probe):
    """Is the samples' semantic entropy low (Kossen et al.

    2024), below the threshold that splits it best.
    """

    name, place = "semantic_entropy_probe", 0

    def target(self, claims: Sequence[Claim]) -> "Floats":
        """Return 1 where the discrete semantic entropy is low, 0 where it is high, or cannot be told."""
        import numpy as np

        sure = np.array([_unanimity(claim) for claim in claims])
        return (sure > best_split(sure)).astype(float)


def _unanimity(claim: Claim) -> float:
    try:
        return DiscreteSemanticEntropy().judge(claim, scattered(claim))[0]
    except Abstain:
        return 0.0


def best_split(values: "Floats") -> float:
    """Return the value that, as the threshold, leaves the least variance within the two sides (Kossen et al. 2024)."""
    import numpy as np

    def within(at: float) -> float:
        sides = values[values <= at], values[values > at]
        return float(sum(((side - side.mean()) ** 2).sum() for side in sides if len(side)))

    places: list[float] = np.unique(values).tolist()
    return min(places, key=within)


def _pair(claim: Claim, judging: Judging) -> Continuation:
    prompt = judging.prompt("answer", question=claim.question.text)
    return Continuation(prompt, claim.answer.tokens or claim.answer.text, is_open(prompt))


def _fold(question: Question) -> int:
    return int(question.id, 16) % FOLDS


def _labelled(path: Path) -> list[tuple[Claim, bool]]:
    """Return the claims of a file of labels, and whether each is right."""
    try:
        told = [
            (str(row["question"]).strip(), str(row["answer"]).strip(), row["right"])
            for row in data.rows(path)
        ]
        if not told or not all(right in (True, False) for *_, right in told):
            raise ValueError("`right` is true or false")
    except (ValueError, KeyError, TypeError) as error:
        form = '{"question": "...", "answer": "...", "right": true}'
        raise RecipeError(
            f"the labels in {path} cannot be read ({error!r}). Each line is {form}."
        ) from error
    return [
        (Claim(Question(text, "labels"), Completion(f" {answer}\n")), bool(right))
        for text, answer, right in told
    ]


def check(*, labels: Path | None = None, least: int = 0, ridge: float = 0.0) -> None:
    """Raise for labels that cannot be read."""
    if labels:
        _labelled(labels)


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifiers."""
    needs = frozenset({"hidden_states"})
    offered = (
        (
            QuestionProbe,
            "whether the model would agree with itself, read off the question's end",
            "2207.05221",
        ),
        (
            AnswerProbe,
            "whether the model would agree with itself, read off the answer's end",
            "2510.17509",
        ),
        (
            EntropyProbe,
            "whether semantic entropy is low, read off the question's end",
            "2406.15927",
        ),
    )
    return [
        Component(
            build.name,
            build,
            doc=doc,
            needs=needs,
            check=check,
            paper=f"https://arxiv.org/abs/{paper}",
        )
        for build, doc, paper in offered
    ]
