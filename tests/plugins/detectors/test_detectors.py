"""The detectors, against values worked out by hand."""

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import cpu_limit
from selfloop_plugins._shared.echoes import echoes
from selfloop_plugins.detectors._meanings import meanings
from selfloop_plugins.detectors.agreement import Agreement
from selfloop_plugins.detectors.arithmetic import Arithmetic
from selfloop_plugins.detectors.cocoa import CoCoA
from selfloop_plugins.detectors.echo import Echo
from selfloop_plugins.detectors.first_token_margin import FirstTokenMargin
from selfloop_plugins.detectors.mean_token_entropy import MeanTokenEntropy
from selfloop_plugins.detectors.p_true import PROMPTS, PTrue
from selfloop_plugins.detectors.perplexity import Perplexity
from selfloop_plugins.detectors.semantic_entropy import DiscreteSemanticEntropy, SemanticEntropy
from selfloop_plugins.detectors.sequence_probability import SequenceProbability

from selfloop import Claim, Completion, Question, Verdict
from selfloop.errors import MissingExtraError, RecipeError, RequestError
from selfloop.testing import ScriptedBackend, verify_context
from selfloop.text.answers import declines, normalise

QUESTION = Question("What is the capital of Egypt?", "test")
LN = math.log
INF, NAN = float("inf"), float("nan")


def judge(detector: Any, claim: Claim) -> Verdict:
    (verdict,) = detector.verify([claim], verify_context())
    assert isinstance(verdict, Verdict)
    return verdict


def claim(answer: str, *samples: str, candidate: Any = "draft") -> Claim:
    return Claim(
        QUESTION,
        Completion(answer),
        tuple(Completion(s, sample=i) for i, s in enumerate(samples)),
        candidate,
    )


@pytest.mark.parametrize(
    ("answer", "samples", "confidence"),
    [
        ("Cairo", ("Cairo", "Cairo", "Giza", "Cairo"), 0.75),
        ("Cairo", (" the CAIRO!", "cairo.", "a Cairo", "“Cairo”"), 1.0),
        ("Cairo", ("Giza",), 0.0),
        ("Cairo", ("Cairo, Egypt", "Cairo"), 0.5),
        ("Cairo", ("", "I don't know", "Cairo", ""), 0.25),
        ("I don't know", ("I don't know", "I don't know"), 0.0),
        ("富士山", ("富士山", "Fuji"), 0.5),
    ],
)
def test_agreement(answer: str, samples: tuple[str, ...], confidence: float) -> None:
    verdict = judge(Agreement(), claim(answer, *samples))
    assert verdict.confidence == confidence
    assert verdict.reason == f"{round(confidence * len(samples))} of {len(samples)} samples agree"


@pytest.mark.parametrize(
    ("given", "reason"),
    [(claim("Cairo"), "no samples"), (claim("...!", "x"), "the answer is empty")],
)
def test_agreement_abstains(given: Claim, reason: str) -> None:
    assert judge(Agreement(), given) == Verdict("agreement", None, reason)


@pytest.mark.parametrize(
    ("question", "answer", "echo"),
    [
        ("What sport is baseball?", "Baseball", True),
        ("Who wrote the plays of William Shakespeare?", " William Shakespeare.", True),
        ("What language do the Japanese speak?", "Japanese", True),
        ("What is Romeo's play?", "Romeos", True),
        ("What are planets?", "a planet", True),
        ("What is the capital of Mexico?", "Mexico City", False),
        ("Which is larger, Mars or Venus?", "Venus", False),
        ("Which of Mars and Venus is larger?", "Venus", False),
        ("Is Cairo in Egypt?", "yes", False),
        ("What is the capital of Egypt?", "the", True),
        ("What is the capital of Egypt?", "", False),
        ("I don't know what?", "I don't know", False),
        ("富士山?", "富士山", True),
        ("What is a gas?", "Gas", True),
    ],
)
def test_echo(question: str, answer: str, echo: bool) -> None:
    assert echoes(question, answer) is echo
    (verdict,) = Echo().verify(
        [Claim(Question(question, "test"), Completion(answer))], verify_context()
    )
    assert verdict.confidence == (0.5 if echo else None)
    assert verdict.reason


def said(*logprobs: float, text: str = "Cairo", sample: int = 0) -> Completion:
    return Completion(text, tuple(range(len(logprobs))), logprobs, sample=sample)


@pytest.mark.parametrize(
    ("logprobs", "confidence"),
    [
        ((-0.5, -0.25), math.exp(-0.75)),
        ((math.log(0.5), math.log(0.5)), 0.25),
        ((0.0,), 1.0),
        ((1e-7,), 1.0),  # what floats do near certainty
        ((-0.5, -INF), 0.0),
        ((-1e6,) * 3, 0.0),
        ((NAN, -0.5), None),
        ((), None),
        ((-0.1,) * 10, math.exp(-1)),
    ],
)
def test_sequence_probability(logprobs: tuple[float, ...], confidence: float | None) -> None:
    verdict = judge(SequenceProbability(), Claim(QUESTION, said(*logprobs)))
    if confidence is None:
        assert verdict.confidence is None
        assert verdict.reason
    else:
        assert verdict.confidence == pytest.approx(confidence, rel=1e-12)


@pytest.mark.parametrize(
    ("logprobs", "confidence"),
    [
        ((-0.5, -0.25), math.exp(-0.375)),
        ((math.log(0.5), math.log(0.125)), 0.25),
        ((0.0,), 1.0),
        ((-0.5, -INF), 0.0),
        ((-0.1,) * 10_000, math.exp(-0.1)),
        ((NAN, -0.5), None),
        ((INF, -INF), None),
        ((), None),
    ],
)
def test_perplexity(logprobs: tuple[float, ...], confidence: float | None) -> None:
    verdict = judge(Perplexity(), Claim(QUESTION, said(*logprobs)))
    assert verdict.confidence == (
        None if confidence is None else pytest.approx(confidence, rel=1e-9)
    )
    assert verdict.reason


@pytest.mark.parametrize(
    ("entropies", "confidence"),
    [
        ((0.5, 1.5), math.exp(-1)),
        ((0.0,), 1.0),
        ((LN(4),), 0.25),
        ((2000.0,), 0.0),
        ((NAN, 1.0), None),
        ((), None),
        (None, None),
    ],
)
def test_mean_token_entropy(entropies: tuple[float, ...] | None, confidence: float | None) -> None:
    verdict = judge(MeanTokenEntropy(), Claim(QUESTION, replace(said(-0.5), entropies=entropies)))
    assert verdict.confidence == (None if confidence is None else pytest.approx(confidence))
    assert verdict.reason


def test_the_entropy_of_a_revision_is_that_of_the_draft_or_sample_it_repeats() -> None:
    samples = (said(-0.1, text="Giza"), replace(said(-0.2, text="giza."), entropies=(1.0,)))
    revision = Claim(QUESTION, said(-0.01, text="Giza"), samples, "revision")
    assert judge(MeanTokenEntropy(), revision).confidence == pytest.approx(math.exp(-1))


def pool(*samples: tuple[str, float], answer: tuple[str, float] = ("Cairo", -0.5)) -> Claim:
    """A claim whose answer and samples are (text, log-probability)."""
    texts = tuple(said(log, text=text, sample=i) for i, (text, log) in enumerate(samples))
    return Claim(QUESTION, said(answer[1], text=answer[0]), texts)


THREE_OF_FOUR = (("Cairo", LN(0.4)), ("the cairo!", LN(0.2)), ("Giza", LN(0.2)), ("CAIRO", LN(0.2)))


def test_semantic_entropy_by_hand() -> None:
    """Of p(Cairo) = .8 and p(Giza) = .2 out of 1, against log 4; counted, .75 and .25."""
    weighed = 1 + (0.8 * LN(0.8) + 0.2 * LN(0.2)) / LN(4)
    counted = 1 + (0.75 * LN(0.75) + 0.25 * LN(0.25)) / LN(4)
    assert judge(SemanticEntropy(), pool(*THREE_OF_FOUR)).confidence == pytest.approx(weighed)
    assert judge(DiscreteSemanticEntropy(), pool(*THREE_OF_FOUR)).confidence == pytest.approx(
        counted
    )


@pytest.mark.extra("stats")
def test_semantic_entropy_is_that_of_scipy() -> None:
    """An independent implementation, in float64, on samples drawn at random."""
    from scipy.stats import entropy

    rng = np.random.default_rng(0)
    for _ in range(50):
        texts, logs = rng.choice(["Cairo", "Giza", "Luxor", ""], 8), -rng.exponential(20, 8)
        if not texts.any():
            continue
        sums = [np.exp(logs[texts == text]).sum() for text in np.unique(texts)]
        counts = np.unique(texts, return_counts=True)[1]
        claim = pool(*zip(map(str, texts), map(float, logs), strict=True))
        for detector, weights in ((SemanticEntropy(), sums), (DiscreteSemanticEntropy(), counts)):
            assert judge(detector, claim).confidence == pytest.approx(
                1 - entropy(weights) / LN(8), abs=1e-9
            )


@pytest.mark.parametrize(
    ("margin", "confidence"),
    [(0.25, 0.25), (0.0, 0.0), (-1e-9, 0.0), (1 + 1e-9, 1.0), (NAN, None), (None, None)],
)
def test_first_token_margin(margin: float | None, confidence: float | None) -> None:
    verdict = judge(FirstTokenMargin(), Claim(QUESTION, replace(said(-0.5), margin=margin)))
    assert verdict.confidence == confidence
    assert verdict.reason


@pytest.mark.parametrize("detector", [SemanticEntropy(), DiscreteSemanticEntropy()])
@pytest.mark.parametrize(
    ("claim", "confidence"),
    [
        (pool(("Cairo", -1.0), ("Cairo.", -2.0)), 1.0),
        (pool(("Cairo", -1.0), ("Giza", -1.0)), 0.0),
        (pool(("Cairo", -5000.0), ("Giza", -5000.0)), 0.0),  # exp of either is 0
        (pool(("Cairo", -1.0)), None),
        (pool(), None),
        (pool(("", -1.0), ("I don't know", -1.0), ("...", -3.0)), None),
    ],
)
def test_semantic_entropy_at_the_edges(
    detector: Any, claim: Claim, confidence: float | None
) -> None:
    verdict = judge(detector, claim)
    assert verdict.confidence == (
        None if confidence is None else pytest.approx(confidence, abs=1e-12)
    )
    assert verdict.reason


def test_semantic_entropy_of_impossible_samples() -> None:
    """A text of probability 0 takes nothing from the others; if all are impossible, abstain."""
    assert judge(
        SemanticEntropy(), pool(("Cairo", -1.0), ("Giza", -INF))
    ).confidence == pytest.approx(1.0)
    assert judge(SemanticEntropy(), pool(("Cairo", -INF), ("Giza", -INF))).confidence is None
    assert judge(SemanticEntropy(), pool(("Cairo", NAN), ("Giza", -1.0))).confidence is None


@pytest.mark.parametrize(
    ("claim", "confidence"),
    [
        (pool(*THREE_OF_FOUR, answer=("Cairo", -2.0)), math.exp(-2.0 / 4)),
        (pool(("Giza", -1.0), answer=("Cairo", -2.0)), math.exp(-2.0)),
        (pool(("Cairo", -1.0), answer=("Cairo", -2.0)), 1.0),
        (pool(("Cairo", -1.0), answer=("Cairo", -INF)), 1.0),
        (pool(("Giza", -1.0), answer=("Cairo", -INF)), 0.0),
        (
            pool(("", -1.0), ("I don't know", -1.0), ("Cairo", -1), answer=("Cairo", -3.0)),
            math.exp(-2),
        ),
        (pool(answer=("Cairo", -1.0)), None),
        (pool(("Cairo", -1.0), answer=("I don't know", -1.0)), None),
        (pool(("Giza", -1.0), answer=("Cairo", NAN)), None),
    ],
)
def test_cocoa(claim: Claim, confidence: float | None) -> None:
    verdict = judge(CoCoA(), claim)
    assert verdict.confidence == (None if confidence is None else pytest.approx(confidence))
    assert verdict.reason


@pytest.mark.parametrize("detector", [SequenceProbability(), Perplexity(), CoCoA()])
def test_a_revision_that_could_not_be_read_is_not_judged(detector: Any) -> None:
    """It has no log-probabilities then, and was never said to the bare question."""
    revision = Claim(QUESTION, Completion("Luxor"), (said(-0.1),), "revision")
    verdict = judge(detector, revision)
    assert (verdict.confidence, verdict.reason) == (
        None,
        "not among the completions of the bare question",
    )


def test_a_broken_log_probability_is_no_confidence() -> None:
    """+inf and -inf together have no sum: to abstain is right, to raise or to be sure is not."""
    verdict = judge(SequenceProbability(), Claim(QUESTION, said(-INF, -INF)))
    assert verdict.confidence == 0.0


@pytest.mark.parametrize(("read", "log"), [(-3.0, -1.0), (-0.5, -0.5)])
def test_a_revision_is_judged_by_the_likeliest_wording_after_the_bare_question(
    read: float, log: float
) -> None:
    samples = (
        said(-2.0, text="giza"),
        said(-1.0, text="The Giza.", sample=1),
        said(-0.1, text="Cairo", sample=2),
    )
    revision = Claim(QUESTION, said(read, text="Giza"), samples, "revision")
    assert judge(SequenceProbability(), revision).confidence == pytest.approx(math.exp(log))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The  Nile!", "nile"),
        ("a an the", "a an the"),
        ("A.B.C.", "abc"),
        ("Theatre", "theatre"),
        ("red\nblue", "red blue"),
        ("é", "e"),
    ],
)
def test_normalise(text: str, same: str) -> None:
    assert normalise(text) == same


@pytest.mark.parametrize(
    "text",
    ["", "  ", "...", "I don't know", "I dont know.", "I don’t know", "i do not know who",
     "I can't say",
     "I cannot answer", "I'm not sure", "I am not sure about it", "IDK", "unknown", "Unknown.",
     "No idea", "Not sure", "Sorry, I can't",
     "I'm sorry", "I am unable to answer", "\"I don't know\""],
)  # fmt: skip
def test_declines(text: str) -> None:
    assert declines(text)


@pytest.mark.parametrize(
    "text",
    [
        "Cairo",
        "The Unknown Soldier",
        "I know: Cairo",
        "Knowing",
        "No",
        "Surely",
        "42",
        "Idkfa",
        "It is not Cairo",
    ],
)
def test_answers(text: str) -> None:
    assert not declines(text)


class Told(ScriptedBackend):
    """Gives the log-probabilities set for " True" and " False", and keeps its requests."""

    def __init__(self, true: Any, false: Any, *, chat: bool = False) -> None:
        super().__init__(chat=chat)
        self.told, self.asked = (true, false), []

    def loglikelihood(self, pairs: Any) -> Any:
        self.asked += pairs
        return [self.told[i % 2] for i in range(len(pairs))]


@pytest.mark.parametrize(
    ("true", "false", "confidence"),
    [
        ((LN(0.6),), (LN(0.2),), 0.75),
        ((LN(0.1), LN(0.5)), (LN(0.05),), 0.5),
        ((-1.0,), (-2000.0,), 1.0),
        ((-2000.0,), (-1.0,), 0.0),
        ((-1.0,), (-INF,), 1.0),
        ((-INF,), (-1.0,), 0.0),
        ((-INF,), (-INF,), None),
        ((NAN,), (-1.0,), None),
        (RequestError("too long"), (-1.0,), None),
        ((-1.0,), RequestError("too long"), None),
    ],
)
def test_p_true(true: Any, false: Any, confidence: float | None) -> None:
    (verdict,) = PTrue().verify([claim("Cairo")], verify_context(Told(true, false), PROMPTS))
    assert verdict.confidence == (None if confidence is None else pytest.approx(confidence))
    assert verdict.reason


@pytest.mark.parametrize("chat", [False, True])
def test_p_true_asks_about_answers_only_and_in_one_form(chat: bool) -> None:
    backend = Told((-1.0,), (-2.0,), chat=chat)
    verdicts = PTrue().verify(
        [claim("I don't know"), claim(" {question} "), claim("")], verify_context(backend, PROMPTS)
    )
    assert [v.confidence is None for v in verdicts] == [True, False, True]
    assert [pair.text for pair in backend.asked] == [" True", " False"]
    pair = backend.asked[0]
    assert pair.open_turn is chat
    text = pair.prompt[0].content if chat else pair.prompt
    assert "Possible answer: {question}\n" in text  # an answer is data: it is not filled in again
    assert QUESTION.text in text


@pytest.mark.parametrize(
    ("question", "answer", "confidence"),
    [
        ("What is 17 plus 25?", "42", 1.0),
        ("What is 17 plus 25?", "43", 0.0),
        ("17+25=", "17 + 25 = 42.", 1.0),
        ("How much is 3 x 4?", "The answer is 12.", 1.0),
        ("What is 12 multiplied  by 12?", "144 eggs", 1.0),
        ("what's 5 − 8?", "-3", 1.0),
        ("what's 5 - 8?", "3", 0.0),
        ("Calculate 1,000 times 1,000", "1,000,000", 1.0),
        ("What is 0.1 + 0.2?", "0.3", 1.0),
        ("What is 1 divided by 4?", "0.25", 1.0),
        ("What is 10 / 3?", "3.33", 1.0),
        ("What is 10 / 3?", "3.34", 0.0),
        ("What is 10 / 3?", "3", 0.0),
        ("What is 99999999999999999999 + 1?", "100000000000000000000", 1.0),
        ("What is 7 times 8?", "fifty-six", None),
        ("What is 7 times 8?", "56 or 54", None),
        ("What is 7 times 8?", "I don't know, 56?", None),
        ("What is 7 times 8?", "", None),
        ("What is 5 divided by 0?", "0", None),
        ("What is 5 times the number of planets?", "40", None),
        ("What is 2 plus 2 plus 2?", "6", None),
        ("What is the capital of Egypt?", "Cairo", None),
        ("__import__('os').getcwd()", "1", None),
        ("What is 9**9**9?", "1", None),
        ("What is " + "9" * 5000 + " times 2?", "1", None),
    ],
)
def test_arithmetic(question: str, answer: str, confidence: float | None) -> None:
    verdict = judge(Arithmetic(), Claim(Question(question, "test"), Completion(answer)))
    assert verdict.confidence == confidence
    assert verdict.reason


def test_arithmetic_is_quick_on_hostile_text() -> None:
    for text in (
        "1" * 100_000,
        "1," * 50_000,
        "what is " * 20_000,
        " " * 100_000 + "1 + 1",
        "1 +" + " " * 100_000,
    ):
        start = time.process_time()
        judge(Arithmetic(), Claim(Question(text, "test"), Completion(text)))
        judge(Arithmetic(), Claim(Question("1 + 1", "test"), Completion(text)))
        assert time.process_time() - start < cpu_limit(1)


# --- which samples mean the same


def test_a_name_that_holds_another_is_its_alias() -> None:
    claim = pool(
        ("Leonardo da Vinci", -1.0),
        ("da Vinci", -1.0),
        ("Leonard", -1.0),
        ("I don't know", -1.0),
        ("", -1.0),
    )
    assert meanings([claim], verify_context(), "alias") == [
        ["leonardo da vinci", "leonardo da vinci", "leonard", "", ""]
    ]
    assert meanings([claim], verify_context(), "text") == [
        ["leonardo da vinci", "da vinci", "leonard", "", ""]
    ]
    assert (
        judge(
            SemanticEntropy(same="alias"), pool(("da Vinci", -1.0), ("Leonardo da Vinci.", -2.0))
        ).confidence
        == 1
    )


class Equals(ScriptedBackend):
    """Calls two answers the same if they begin with the same letter; refuses those with a q."""

    def __init__(self, *, chat: bool = False) -> None:
        super().__init__(chat=chat)
        self.asked: list[Any] = []

    def loglikelihood(self, pairs: Any) -> Any:
        self.asked += pairs
        return [self._read(pair) for pair in pairs]

    def _read(self, pair: Any) -> Any:
        text = pair.prompt if isinstance(pair.prompt, str) else pair.prompt[-1].content
        one, other = (
            text.split(f"{which} answer: ")[-1].split("\n")[0] for which in ("First", "Second")
        )
        if "q" in one + other:
            return RequestError("too long")
        return (-0.1,) if (one[0] == other[0]) is (pair.text == " Yes") else (-3.0,)


@pytest.mark.parametrize("chat", [False, True])
def test_the_model_is_asked_about_each_two_meanings_once(chat: bool) -> None:
    backend = Equals(chat=chat)
    some = [
        pool(("Cairo", -1.0), ("cairo!", -1.0), ("Cyro", -1.0), ("Giza", -1.0)),
        pool(("qa", -1.0), ("qb", -1.0)),
    ]
    told = verify_context(backend, PROMPTS)
    assert meanings(some, told, "model") == [["cairo", "cairo", "cairo", "giza"], ["qa", "qb"]]
    assert len(backend.asked) == 2 * (3 + 1)
    (verdict, other) = DiscreteSemanticEntropy(same="model").verify(some, told)
    assert verdict.confidence == pytest.approx(1 - (3 / 4 * LN(4 / 3) + 1 / 4 * LN(4)) / LN(4))
    assert other.confidence == 0


def test_two_meanings_are_one_if_each_follows_from_the_other() -> None:
    asked: list[tuple[str, str]] = []

    def entails(pairs: Any) -> list[bool]:
        """Say that a text follows from one that begins with it."""
        asked.extend(pairs)
        return [
            premise.startswith(hypothesis) or premise == "What is the capital of Egypt? x"
            for premise, hypothesis in pairs
        ]

    claim = pool(("Cairo", -1.0), ("Cairo city", -1.0), ("x", -1.0), ("I don't know", -1.0))
    assert meanings([claim], verify_context(), "nli", entails) == [["cairo", "cairo city", "x", ""]]
    assert len(asked) == 6 and all(QUESTION.text in text for pair in asked for text in pair)
    assert meanings([claim], verify_context(), "nli", lambda pairs: [True] * len(pairs)) == [
        ["cairo", "cairo", "cairo", ""]
    ]


@pytest.mark.parametrize("options", [{"same": "nli"}, {"nli": Path("some/folder")}])
def test_meaning_by_entailment_takes_a_model(options: Any) -> None:
    with pytest.raises(RecipeError, match="goes with"):
        SemanticEntropy(**options)


def test_a_missing_library_or_model_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Absent:
        @staticmethod
        def from_pretrained(folder: Path, **options: Any) -> Any:
            assert options["local_files_only"] and not options["trust_remote_code"]
            raise OSError("no such file")

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="selfloop"):
        SemanticEntropy(same="nli", nli=tmp_path)
    stand_in = SimpleNamespace(AutoModelForSequenceClassification=Absent, AutoTokenizer=Absent)
    monkeypatch.setitem(sys.modules, "transformers", stand_in)
    with pytest.raises(RecipeError, match="safetensors"):
        SemanticEntropy(same="nli", nli=tmp_path)
