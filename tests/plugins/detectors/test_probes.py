"""What is read off hidden states and attentions, and how the other prompts' answers are counted."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selfloop_plugins._shared.calibration import sigmoid
from selfloop_plugins.detectors.probes import (
    AnswerProbe,
    EntropyProbe,
    Probe,
    QuestionProbe,
    _fit_head,
    _fold,
    best_split,
    check,
)
from selfloop_plugins.detectors.prompt_stability import PromptStability
from selfloop_plugins.detectors.prompt_stability import selfloop_detectors as stability
from selfloop_plugins.detectors.rauq import Rauq

from selfloop import Claim, Completion, Question
from selfloop.errors import RecipeError, RequestError
from selfloop.testing import ScriptedBackend, verify_context

QUESTION = Question("What is the capital of Egypt?", "test")
NAN, INF = float("nan"), float("inf")


def said(text: str, *logprobs: float, sample: int = 0) -> Completion:
    return Completion(text, tuple(range(1, len(logprobs) + 1)), logprobs, sample=sample)


# --- probes


class Knows(ScriptedBackend):
    """Its states hold, among noise, the model's chance to agree with itself on question i."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width, self.read = width, 0

    def hidden_states(self, pairs: Any, places: Any = (0, -1)) -> Any:
        self.read += len(pairs)
        found = []
        for pair in pairs:
            number = int(pair.prompt.rpartition("number ")[2].partition("?")[0])
            if number == 999:
                found.append(RequestError("too long"))
                continue
            state = np.random.default_rng([number, len(pair.text)]).normal(
                size=(len(places), self.width)
            )
            state[:, 0] = chance(number)
            found.append(state.astype(np.float32))
        return found


def chance(number: int) -> float:
    return float(np.random.default_rng(number).random())


def claim(number: int, answer: str = "yes") -> Claim:
    luck = np.random.default_rng(number + 10_000)
    samples = tuple(
        said("yes" if luck.random() < chance(number) else f"no{k}", -1.0, sample=k)
        for k in range(8)
    )
    return Claim(Question(f"number {number}?", "test"), said(answer, -0.5), samples)


@pytest.mark.extra("stats")
@pytest.mark.parametrize("build", [QuestionProbe, AnswerProbe, EntropyProbe])
def test_a_probe_finds_what_the_states_hold(build: type[Probe], tmp_path: Path) -> None:
    claims, backend = [claim(i) for i in range(400)], Knows()
    verdicts = build(folder=tmp_path, ridge=10.0).verify(claims, verify_context(backend))
    given = [v.confidence for v in verdicts]
    assert np.corrcoef(given, [chance(i) for i in range(400)])[0, 1] > 0.7
    assert backend.read == 400
    more = build(folder=tmp_path).verify([claim(500), claims[7]], verify_context(backend))
    assert more[1] == verdicts[7], "what was fitted stays with the run"
    assert more[0].confidence is not None


@pytest.mark.extra("stats")
def test_a_claim_is_not_judged_by_what_it_taught(tmp_path: Path) -> None:
    """A head is fitted on the other folds: an answer does not change its own verdict."""
    claims = [claim(i) for i in range(200)]
    first = AnswerProbe(folder=tmp_path / "a", ridge=1.0)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    told = first.verify(claims, verify_context(Knows()))
    turned = Claim(
        claims[0].question, claims[0].answer, tuple(said("no", -1.0, sample=k) for k in range(8))
    )
    other = AnswerProbe(folder=tmp_path / "b", ridge=1.0).verify(
        [turned, *claims[1:]], verify_context(Knows())
    )
    same = [a == b for a, b in zip(told, other, strict=True)]
    own = [_fold(c.question) == _fold(claims[0].question) for c in claims]
    assert same[0] and not all(same)
    assert same == own


@pytest.mark.extra("stats")
def test_labels_take_it_on(tmp_path: Path) -> None:
    """The labels say the opposite of agreement; enough of them turn the probe round."""
    labels = tmp_path / "labels.jsonl"
    rows = [
        {"question": f"number {i}?", "answer": "yes", "right": chance(i) < 0.5}
        for i in range(1000, 1400)
    ]
    labels.write_text("\n".join(map(json.dumps, rows)))
    claims = [claim(i) for i in range(200)]
    found = AnswerProbe(folder=tmp_path, ridge=1.0, labels=labels).verify(
        claims, verify_context(Knows())
    )
    assert np.corrcoef([v.confidence for v in found], [chance(i) for i in range(200)])[0, 1] < -0.7


@pytest.mark.extra("stats")
def test_a_head_is_that_of_an_independent_implementation() -> None:
    from sklearn.linear_model import LogisticRegression

    luck = np.random.default_rng(0)
    states = luck.normal(size=(300, 5)) * [1, 2, 3, 4, 5] + 7
    right = luck.random(300) < sigmoid(states[:, 0] - 7 - 0.2 * (states[:, 4] - 7))
    head = _fit_head(states, right.astype(float), 2.0, np.zeros(6))
    standard = (states - states.mean(0)) / states.std(0)
    theirs = LogisticRegression(C=0.5, tol=1e-8).fit(standard, right)
    assert sigmoid(head[0] + states @ head[1:]) == pytest.approx(
        theirs.predict_proba(standard)[:, 1], abs=1e-3
    )


@pytest.mark.extra("stats")
def test_the_prior_holds_where_there_is_little_to_learn() -> None:
    prior = np.array([0.5, 1.0, -2.0])
    states = np.random.default_rng(0).normal(size=(4, 2))
    assert _fit_head(states, np.ones(4), 1e9, prior)[1:] == pytest.approx(prior[1:], abs=1e-3)


@pytest.mark.extra("stats")
def test_the_best_split_is_that_of_a_tree() -> None:
    from sklearn.tree import DecisionTreeRegressor

    values = np.random.default_rng(0).random(100).round(2)
    tree = DecisionTreeRegressor(max_depth=1).fit(values[:, None], values)
    assert (values > best_split(values)).tolist() == (values > tree.tree_.threshold[0]).tolist()
    assert best_split(np.array([0.5, 0.5])) == 0.5


@pytest.mark.extra("stats")
def test_what_cannot_be_probed(tmp_path: Path) -> None:
    some = [claim(999), claim(3, ""), claim(4, "I don't know"), claim(5)]
    verdicts = AnswerProbe(folder=tmp_path).verify(some, verify_context(Knows()))
    assert [v.confidence for v in verdicts] == [None] * 4
    assert (
        "too long" in verdicts[0].reason
        and "declines" in verdicts[1].reason
        and "fewer than 200" in verdicts[3].reason
    )
    AnswerProbe(folder=tmp_path).verify([claim(i) for i in range(200)], verify_context(Knows()))
    (other,) = AnswerProbe(folder=tmp_path).verify([claim(5)], verify_context(Knows(width=4)))
    assert (other.confidence, other.reason) == (None, "the probe was fitted on another model")


@pytest.mark.extra("stats")
def test_a_single_class_is_learnt_as_such(tmp_path: Path) -> None:
    same = [Claim(c.question, c.answer, (said("yes", -1.0),) * 4) for c in map(claim, range(200))]
    verdicts = AnswerProbe(folder=tmp_path).verify(same, verify_context(Knows()))
    assert all(v.confidence is not None and v.confidence > 0.9 for v in verdicts)


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"question": "a", "answer": "b"}', '{"question": "a", "answer": "b", "right": 3}'],
)
def test_labels_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text(text)
    with pytest.raises(RecipeError, match=r"right|there is no row|each line is"):
        check(labels=tmp_path / "labels.jsonl")


# --- RAUQ


class Attends(ScriptedBackend):
    def __init__(self, told: Any) -> None:
        super().__init__()
        self.told = told

    def attentions(self, pairs: Any) -> Any:
        return [self.told] * len(pairs)


def test_rauq_by_hand() -> None:
    """Of three layers the second is the middle third; its second head attends backwards."""
    attention = np.zeros((3, 2, 3), np.float32)
    attention[1] = [[0.9, 0.1, 0.1], [0.0, 0.5, 0.25]]
    attention[0] = attention[2] = 0.7
    p = (0.5, 0.8, 0.4)
    c = [0.5]
    c.append(0.2 * 0.8 + 0.8 * 0.5 * c[0])
    c.append(0.2 * 0.4 + 0.8 * 0.25 * c[1])
    (verdict,) = Rauq().verify(
        [Claim(QUESTION, said("Cairo", *map(math.log, p)))], verify_context(Attends(attention))
    )
    assert verdict.confidence == pytest.approx(math.prod(c) ** (1 / 3), rel=1e-6)


def test_rauq_is_the_worst_of_the_middle_layers() -> None:
    attention = np.random.default_rng(0).random((12, 4, 5)).astype(np.float32)
    logs = -np.random.default_rng(1).random(5)
    doubts = []
    for layer in range(4, 8):
        head = max(range(4), key=lambda h, at=layer: attention[at, h, 1:].mean())  # type: ignore[misc]
        c, logged = math.exp(logs[0]), logs[0]
        for i in range(1, 5):
            c = 0.3 * math.exp(logs[i]) + 0.7 * float(attention[layer, head, i]) * c
            logged += math.log(c)
        doubts.append(-logged / 5)
    (verdict,) = Rauq(alpha=0.3).verify(
        [Claim(QUESTION, said("Cairo", *logs))], verify_context(Attends(attention))
    )
    assert verdict.confidence == pytest.approx(math.exp(-max(doubts)), rel=1e-6)


@pytest.mark.parametrize(
    ("logprobs", "attention", "confidence"),
    [
        ((-0.5,), np.ones((3, 2, 1), np.float32), math.exp(-0.5)),
        ((-INF,), np.ones((3, 2, 1), np.float32), 0.0),
        ((NAN,), np.ones((3, 2, 1), np.float32), None),
        ((-0.5,), np.ones((1, 1, 1), np.float32), math.exp(-0.5)),
        ((-0.5,), np.ones((3, 2, 4), np.float32), None),
        ((-0.5,), RequestError("too long"), None),
        ((), np.ones((3, 2, 1), np.float32), None),
        ((-1e-3,) * 10_000, np.ones((3, 2, 10_000), np.float32), pytest.approx(0.999, abs=1e-3)),
    ],
)
def test_rauq_at_the_edges(logprobs: tuple[float, ...], attention: Any, confidence: Any) -> None:
    (verdict,) = Rauq().verify(
        [Claim(QUESTION, said("Cairo", *logprobs))], verify_context(Attends(attention))
    )
    assert verdict.confidence == (
        confidence if confidence is None else pytest.approx(confidence, abs=1e-3)
    )
    assert verdict.reason


# --- prompt stability


class Other(ScriptedBackend):
    """Gives one answer for each of the other prompts, in any order."""

    def __init__(self, answers: list[Any], *, chat: bool = False) -> None:
        super().__init__(chat=chat)
        self.answers, self.asked = answers, []

    def generate(self, requests: Any) -> Any:
        self.asked += requests
        for i in reversed(range(len(requests))):
            one = self.answers[i % 3]
            if one is not None:
                yield i, one if isinstance(one, RequestError) else Completion(one)


@pytest.mark.parametrize(
    ("answer", "others", "confidence"),
    [
        ("Cairo", ["cairo.", "the Cairo", "Giza"], 2 / 3),
        ("Cairo", ["Giza", "", "I don't know"], 0.0),
        ("Cairo", ["Cairo", RequestError("too long"), "Giza"], 0.5),
        ("Cairo", [RequestError("too long")] * 3, None),
        ("Cairo", [None, None, None], None),
        ("I don't know", ["I don't know"] * 3, None),
        ("", [""] * 3, None),
    ],
)
def test_prompt_stability(answer: str, others: list[Any], confidence: float | None) -> None:
    told = verify_context(Other(others), stability()[0].prompts)
    (verdict,) = PromptStability().verify([Claim(QUESTION, Completion(answer))], told)
    assert verdict.confidence == (None if confidence is None else pytest.approx(confidence))
    assert verdict.reason


@pytest.mark.parametrize("chat", [False, True])
def test_the_other_prompts_ask_the_same_question(chat: bool) -> None:
    backend = Other(["Cairo"] * 3, chat=chat)
    PromptStability().verify(
        [Claim(QUESTION, Completion("Cairo"))], verify_context(backend, stability()[0].prompts)
    )
    texts = [request.prompt[-1].content if chat else request.prompt for request in backend.asked]
    assert len(set(texts)) == 3
    assert all(text.endswith(f"Question: {QUESTION.text}\nAnswer:") for text in texts)
    assert all(request.open_turn is chat for request in backend.asked)
