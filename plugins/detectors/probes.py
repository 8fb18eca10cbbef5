"""Probes: a logistic regression on the model's last hidden states predicts the result of sampling.

A probe needs only the model's own answers. Its targets are their agreement (EliCal, arXiv
2510.17509) or their semantic entropy (Kossen et al. 2024, arXiv 2406.15927). With labels, up to
some thousand, the fit goes on from there (EliCal's second stage).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge
from selfloop_plugins._shared.meaning import meaning

from selfloop import Claim, Completion, Component, Question, Verdict, VerifyContext, data, hookimpl
from selfloop.config.prompts import is_open
from selfloop.errors import RecipeError, RequestError
from selfloop.records import Continuation
from selfloop.storage import atomic
from selfloop.storage.run_folder import RunFolder

from ._claims import DECLINED, Abstain, count_agreeing, sample_meanings
from ._meanings import entropy_confidence
from ._state import damaged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    # a state, (width,), or the reason why there is none
    State = Floats | str
    # intercept, then a weight for each number of a state, (1 + width,)
    Head = Floats

# a head for each fifth of the questions, so that none judges a question it was fitted on
FOLDS = 5
# a number of the states that hardly varies is not divided by its spread
MIN_SPREAD = 1e-6
MAX_WEIGHT = 50.0


class Probe:
    """Confidence is the output of one of five heads: the one that was not fitted on the question.

    The probe is fitted on the first batch with `min_answers` answers that have samples, and stored
    with the run; until then it abstains. `labels` is JSONL of {"question", "answer", "right"};
    with it the fit goes on from the one on the model's own samples. `ridge` is the strength of the
    normal prior on the weights of standardised states.
    """

    name: ClassVar[str]
    # which token's state is read: the last of the question (0), or of the answer (-1)
    position: ClassVar[Literal[0, -1]]

    def __init__(
        self,
        *,
        folder: Path,
        min_answers: Annotated[int, Ge(20)] = 200,
        ridge: Annotated[float, Ge(0.001)] = 1000.0,
        labels: Path | None = None,
    ) -> None:
        self._file = RunFolder(folder).probe(self.name)
        self._min_answers, self._ridge = min_answers, ridge
        self._labels = _read_labels(labels) if labels else []

    def target(self, claims: Sequence[Claim]) -> "Floats":
        """Return the value to predict of each claim, in [0, 1]: the share of samples that agree."""
        import numpy as np

        return np.array([count_agreeing(claim) / len(claim.samples) for claim in claims])

    def verify(self, claims: Sequence[Claim], context: VerifyContext) -> list[Verdict]:
        """Return one verdict for each claim; all states are read in one call."""
        states = self._states(claims, context)
        heads = self._heads(claims, states, context)
        return [
            self._probed(claim, state, heads) for claim, state in zip(claims, states, strict=True)
        ]

    def _probed(self, claim: Claim, state: "State", heads: "list[Head]") -> Verdict:
        """Return the verdict of the head that did not see the claim's question."""
        from selfloop_plugins._shared.calibration import sigmoid

        if isinstance(state, str):
            return Verdict(self.name, None, state)
        if not heads:
            reason = f"fewer than {self._min_answers} answers with samples to learn from"
            return Verdict(self.name, None, reason)
        head = heads[_fold(claim.question)]
        # a narrower or wider state is that of another model
        if len(head) != len(state) + 1:
            return Verdict(self.name, None, "the probe was fitted on another model")
        confidence = float(sigmoid(head[0] + head[1:] @ state))
        return Verdict(self.name, confidence, "from the hidden state")

    def _states(self, claims: Sequence[Claim], context: VerifyContext) -> "list[State]":
        """Return the state of each claim, or why there is none."""
        asked = [i for i, claim in enumerate(claims) if meaning(claim.answer.text)]
        texts = [_answer_text(claims[i], context) for i in asked]
        results = context.backend.hidden_states(texts, (self.position,))
        states: list[State] = [DECLINED] * len(claims)
        for i, result in zip(asked, results, strict=True):
            if isinstance(result, RequestError):
                states[i] = str(result)
            else:
                # (positions, width), of the one position asked for
                states[i] = result[0].astype("float64")
        return states

    def _heads(
        self, claims: Sequence[Claim], states: "Sequence[State]", context: VerifyContext
    ) -> "list[Head]":
        """Return the stored heads, or fit and store them; none with too few answers."""
        if self._file.is_file():
            return self._stored()
        fit_claims: list[Claim] = []
        fit_states: list[Floats] = []
        for claim, state in zip(claims, states, strict=True):
            # drafts alone: a revision has the question and the samples of its draft
            has_samples = claim.candidate == "draft" and len(claim.samples) > 1
            if has_samples and not isinstance(state, str):
                fit_claims.append(claim)
                fit_states.append(state)
        if len(fit_claims) < self._min_answers:
            return []
        heads = self._fit_heads(fit_claims, fit_states, self.target(fit_claims))
        if self._labels:
            heads = self._fitted_on_labels(heads, context)
        atomic.write_text(self._file, json.dumps([head.tolist() for head in heads]))
        return heads

    def _fitted_on_labels(self, heads: "list[Head]", context: VerifyContext) -> "list[Head]":
        """Return the heads fitted on the labels, with the heads so far as the prior."""
        import numpy as np

        labelled_claims = [claim for claim, _ in self._labels]
        states = self._states(labelled_claims, context)
        fit_claims: list[Claim] = []
        fit_states: list[Floats] = []
        labels: list[bool] = []
        for (claim, is_right), state in zip(self._labels, states, strict=True):
            if not isinstance(state, str):
                fit_claims.append(claim)
                fit_states.append(state)
                labels.append(is_right)
        return self._fit_heads(fit_claims, fit_states, np.array(labels, float), heads)

    def _stored(self) -> "list[Head]":
        """Return the run's own heads.

        Raises StoreError, which stops the run: without its heads it would decide otherwise.
        """
        import numpy as np

        try:
            stored = json.loads(self._file.read_text(encoding="utf-8"))
            heads = [np.array(head, float) for head in stored]
        except (OSError, ValueError, TypeError) as error:
            raise damaged(self._file, f"the detector {self.name}") from error
        shapes = {head.shape for head in heads}
        is_whole = (
            len(heads) == FOLDS and len(shapes) == 1 and heads[0].ndim == 1 and len(heads[0]) > 1
        )
        if not is_whole or not all(np.isfinite(head).all() for head in heads):
            raise damaged(self._file, f"the detector {self.name}")
        return heads

    def _fit_heads(
        self,
        claims: Sequence[Claim],
        states: "Sequence[Floats]",
        target: "Floats",
        priors: "list[Head] | None" = None,
    ) -> "list[Head]":
        """Return a head for each fold, fitted on the questions of all other folds."""
        import numpy as np

        folds = np.array([_fold(claim.question) for claim in claims])
        rows = np.array(states)  # (claims, width)
        heads = []
        for fold in range(FOLDS):
            others = folds != fold
            # where all questions are in one fold, its head has nothing else to learn from
            used = others if others.any() else ~others
            prior = priors[fold] if priors else np.zeros(rows.shape[1] + 1)
            heads.append(_fit_head(rows[used], target[used], self._ridge, prior))
        return heads


def _fit_head(states: "Floats", target: "Floats", ridge: float, prior: "Head") -> "Head":
    """Return the head of a logistic regression on standardised states, near another head.

    The head applies to states as they are: the standardisation is folded into it.
    """
    import numpy as np
    from selfloop_plugins._shared.calibration import fit_logistic

    # states differ in scale from one number to the next, and ridge treats all alike
    centre = states.mean(0)
    spread = np.maximum(states.std(0), MIN_SPREAD)
    standardised = (states - centre) / spread
    weights, intercept = fit_logistic(
        standardised, target, ridge, prior=prior[1:] * spread, min_weight=-MAX_WEIGHT
    )
    # w · (x − c) / s = (w / s) · x − (w / s) · c
    weights = weights / spread
    return np.concatenate([[intercept - weights @ centre], weights])


class QuestionProbe(Probe):
    """P(IK): does the model know the answer to this question?

    Kadavath et al. 2022, arXiv 2207.05221.
    """

    name, position = "question_probe", 0


class AnswerProbe(Probe):
    """Would the model give this answer again?

    Cf. SAPLMA, Azaria & Mitchell 2023, arXiv 2304.13734.
    """

    name, position = "answer_probe", -1


class EntropyProbe(Probe):
    """Is the samples' semantic entropy below the threshold that splits it best?

    Kossen et al. 2024, arXiv 2406.15927.
    """

    name, position = "semantic_entropy_probe", 0

    def target(self, claims: Sequence[Claim]) -> "Floats":
        """Return 1 where the discrete semantic entropy is low, 0 where it is high or unknown."""
        import numpy as np

        unanimity = np.array([_unanimity(claim) for claim in claims])
        return (unanimity > best_split(unanimity)).astype(float)


def _unanimity(claim: Claim) -> float:
    """Return the confidence of `discrete_semantic_entropy`; 0 where it would abstain."""
    try:
        meanings = sample_meanings(claim)
    except Abstain:
        return 0.0
    confidence, _, _ = entropy_confidence(meanings, [1.0] * len(meanings))
    return confidence


def best_split(values: "Floats") -> float:
    """Return the threshold that leaves the least variance within its two sides.

    Kossen et al. 2024.
    """
    import numpy as np

    def variance_within(threshold: float) -> float:
        sides = values[values <= threshold], values[values > threshold]
        return float(sum(((side - side.mean()) ** 2).sum() for side in sides if len(side)))

    thresholds: list[float] = np.unique(values).tolist()
    return min(thresholds, key=variance_within)


def _answer_text(claim: Claim, context: VerifyContext) -> Continuation:
    """Return the answer after the question, in the tokens of the model where they are known."""
    prompt = context.prompt("answer", question=claim.question.text)
    return Continuation(prompt, claim.answer.tokens or claim.answer.text, is_open(prompt))


def _fold(question: Question) -> int:
    """Return the fold of a question: always the same, so that a resumed run uses the same head."""
    return int(question.id, 16) % FOLDS


def _read_labels(path: Path) -> list[tuple[Claim, bool]]:
    """Return the claims of a file of labels, and whether each is right."""
    labels: list[tuple[Claim, bool]] = []
    try:
        for row in data.rows(path):
            question, answer = str(row["question"]).strip(), str(row["answer"]).strip()
            if row["right"] not in (True, False):
                raise ValueError("`right` is true or false")
            # as a model answers: after a space, with the end of the line
            claim = Claim(Question(question, "labels"), Completion(f" {answer}\n"))
            labels.append((claim, bool(row["right"])))
        if not labels:
            raise ValueError("`right` is true or false")
    except (ValueError, KeyError, TypeError) as error:
        form = '{"question": "...", "answer": "...", "right": true}'
        raise RecipeError(
            f"the labels in {path} cannot be read ({error!r}). Each line is {form}."
        ) from error
    return labels


def check(*, labels: Path | None = None, **_others: object) -> None:
    """Raise RecipeError for labels that cannot be read."""
    if labels:
        _read_labels(labels)


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detectors."""
    offers = (
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
    components = []
    for build, doc, paper in offers:
        component = Component(
            build.name,
            build,
            doc=doc,
            needs=frozenset({"hidden_states"}),
            check=check,
            paper=f"https://arxiv.org/abs/{paper}",
        )
        components.append(component)
    return components
