"""The contracts of `selfloop.testing`, held against every component that comes with selfloop."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest
from selfloop_plugins import report
from selfloop_plugins.backends import hf, llama_cpp, scripted
from selfloop_plugins.critics import contrast, independent, self_refine
from selfloop_plugins.detectors import (
    agreement,
    arithmetic,
    bsdetector,
    cocoa,
    combined,
    echo,
    eigenscore,
    first_token_margin,
    flag,
    mean_token_entropy,
    meaning_probability,
    p_true,
    paraphrase,
    perplexity,
    pmi,
    probes,
    prompt_stability,
    rauq,
    reverse_question,
    sar,
    selfcheck,
    semantic_entropy,
    sequence_probability,
)
from selfloop_plugins.few_shot import own_demonstrations
from selfloop_plugins.observers import console, diversity, jsonl, trackers
from selfloop_plugins.scorers import answerable, balance, novelty, well_formed
from selfloop_plugins.sources import (
    blank_slate,
    datasets,
    frontier,
    self_prompting,
    topics,
    variants,
)
from selfloop_plugins.sources import file as question_file
from selfloop_plugins.sources import recheck as again

from selfloop.registry.manager import load
from selfloop.testing import (
    BackendContract,
    CriticContract,
    DemonstratorContract,
    ObserverContract,
    QuestionSourceContract,
    ScorerContract,
    ScriptedBackend,
    VerifierContract,
)

FACTS = Path(__file__).parent.parent / "recipes" / "facts.jsonl"


class TestSelfRefine(CriticContract):
    component = self_refine.selfloop_critics()[0]


class TestIndependent(CriticContract):
    component = independent.selfloop_critics()[0]


class TestContrast(CriticContract):
    component = contrast.selfloop_critics()[0]


class TestOwnDemonstrations(DemonstratorContract):
    component = own_demonstrations.selfloop_demonstrators()[0]


class TestAnswerable(ScorerContract):
    component = answerable.selfloop_scorers()[0]


class TestBalance(ScorerContract):
    component = balance.selfloop_scorers()[0]


class TestAgreement(VerifierContract):
    component = agreement.selfloop_verifiers()[0]


class TestSequenceProbability(VerifierContract):
    component = sequence_probability.selfloop_verifiers()[0]


class TestMeaningProbability(VerifierContract):
    component = meaning_probability.selfloop_verifiers()[0]


class TestPmi(VerifierContract):
    component = pmi.selfloop_verifiers()[0]


class TestFlag(VerifierContract):
    component = flag.selfloop_verifiers()[0]


class TestRauq(VerifierContract):
    component = rauq.selfloop_verifiers()[0]


class TestQuestionProbe(VerifierContract):
    component = probes.selfloop_verifiers()[0]
    options: ClassVar = {"folder": Path("nowhere")}


class TestAnswerProbe(VerifierContract):
    component = probes.selfloop_verifiers()[1]
    options: ClassVar = {"folder": Path("nowhere")}


class TestSemanticEntropyProbe(VerifierContract):
    component = probes.selfloop_verifiers()[2]
    options: ClassVar = {"folder": Path("nowhere")}


class TestPromptStability(VerifierContract):
    component = prompt_stability.selfloop_verifiers()[0]


class TestCombined(VerifierContract):
    component = combined.selfloop_verifiers()[0]
    # four claims are too few to fit, and to store anything
    options: ClassVar = {"folder": Path("nowhere")}


class TestPerplexity(VerifierContract):
    component = perplexity.selfloop_verifiers()[0]


class TestFirstTokenMargin(VerifierContract):
    component = first_token_margin.selfloop_verifiers()[0]


class TestMeanTokenEntropy(VerifierContract):
    component = mean_token_entropy.selfloop_verifiers()[0]


class TestPTrue(VerifierContract):
    component = p_true.selfloop_verifiers()[0]


class TestSemanticEntropy(VerifierContract):
    component = semantic_entropy.selfloop_verifiers()[0]


class TestDiscreteSemanticEntropy(VerifierContract):
    component = semantic_entropy.selfloop_verifiers()[1]


class TestArithmetic(VerifierContract):
    component = arithmetic.selfloop_verifiers()[0]


class TestEcho(VerifierContract):
    component = echo.selfloop_verifiers()[0]


class TestCoCoA(VerifierContract):
    component = cocoa.selfloop_verifiers()[0]


class TestBSDetector(VerifierContract):
    component = bsdetector.selfloop_verifiers()[0]


class TestSelfCheckNgram(VerifierContract):
    component = selfcheck.selfloop_verifiers()[0]


class TestSelfCheckPrompt(VerifierContract):
    component = selfcheck.selfloop_verifiers()[1]


class TestSar(VerifierContract):
    component = sar.selfloop_verifiers()[0]


class TestParaphrase(VerifierContract):
    component = paraphrase.selfloop_verifiers()[0]


class TestReverseQuestion(VerifierContract):
    component = reverse_question.selfloop_verifiers()[0]


class TestReverseQuestionByOverlap(VerifierContract):
    component = reverse_question.selfloop_verifiers()[0]
    options: ClassVar = {"by": "overlap"}


class TestEigenScore(VerifierContract):
    component = eigenscore.selfloop_verifiers()[0]


class TestWellFormed(ScorerContract):
    component = well_formed.selfloop_scorers()[0]


class TestWellFormedWithOptions(ScorerContract):
    component = well_formed.selfloop_scorers()[0]
    options = {"min_words": 1, "max_words": 2}  # noqa: RUF012  the contract declares it


class TestNovelty(ScorerContract):
    component = novelty.selfloop_scorers()[0]


class TestAgain(QuestionSourceContract):
    component = again.selfloop_question_sources()[0]


class TestBlankSlate(QuestionSourceContract):
    component = blank_slate.selfloop_question_sources()[0]


class TestDataset(QuestionSourceContract):
    component = datasets.selfloop_question_sources()[0]

    @pytest.fixture(autouse=True)
    def _rows(self, tmp_path: Path) -> None:
        rows = '{"question": "What is the capital of Peru?", "answers": ["Lima"]}\n{"question": "Who?", "answers": ["I"]}'
        (tmp_path / "rows.jsonl").write_text(rows)
        self.options = {"path": tmp_path / "rows.jsonl"}


class TestFile(QuestionSourceContract):
    component = question_file.selfloop_question_sources()[0]
    options: ClassVar = {"path": FACTS}


class TestFrontier(QuestionSourceContract):
    component = frontier.selfloop_question_sources()[0]


class TestSelfPrompting(QuestionSourceContract):
    component = self_prompting.selfloop_question_sources()[0]


class TestTopics(QuestionSourceContract):
    component = topics.selfloop_question_sources()[0]


class TestVariants(QuestionSourceContract):
    component = variants.selfloop_question_sources()[0]


class TestConsole(ObserverContract):
    component = console.selfloop_observers()[0]


class TestConsoleLive(ObserverContract):
    component = console.selfloop_observers()[0]
    options: ClassVar = {"mode": "live"}


class TestDiversity(ObserverContract):
    component = diversity.selfloop_observers()[0]


class TestJsonl(ObserverContract):
    component = jsonl.selfloop_observers()[0]
    options: ClassVar = {"completions": True}


class TestReport(ObserverContract):
    component = report.selfloop_observers()[0]


def tracker(name: str) -> Any:
    return next(one for one in trackers.selfloop_observers() if one.name == name)


class TestTensorboard(ObserverContract):
    component = tracker("tensorboard")


@pytest.mark.skipif(find_spec("mlflow") is None, reason="pip install 'selfloop[mlflow]'")
class TestMlflow(ObserverContract):
    component = tracker("mlflow")


@pytest.mark.skipif(find_spec("trackio") is None, reason="pip install 'selfloop[trackio]'")
class TestTrackio(ObserverContract):
    component = tracker("trackio")


@pytest.mark.skipif(find_spec("wandb") is None, reason="pip install 'selfloop[wandb]'")
class TestWandb(ObserverContract):
    component = tracker("wandb")


class TestScripted(BackendContract):
    def backend(self) -> Any:
        return scripted.selfloop_backends()[0].build()


class TestScriptedChat(BackendContract):
    def backend(self) -> Any:
        return ScriptedBackend(chat=True)


@pytest.fixture(scope="module")
def smollm2() -> Iterator[Any]:
    backend = llama_cpp.build(model="smollm2-135m-instruct", n_ctx=2048, sequences=8)
    yield backend
    backend.close()


@pytest.mark.model
class TestLlamaCpp(BackendContract):
    model: Any

    @pytest.fixture(autouse=True)
    def _shared(self, smollm2: Any) -> None:
        self.model = smollm2

    def backend(self) -> Any:
        return self.model


@pytest.fixture(scope="module")
def transformed() -> Iterator[Any]:
    backend = hf.build(model="smollm2-135m-instruct", batch=8)
    yield backend
    backend.close()


@pytest.mark.model
class TestTransformers(BackendContract):
    prompts = ("Question: What is the capital of Egypt?\nAnswer:", "One, two, three,", "x " * 40)
    model: Any

    @pytest.fixture(autouse=True)
    def _shared(self, transformed: Any) -> None:
        self.model = transformed

    def backend(self) -> Any:
        return self.model


def test_all_that_is_built_in_is_held_to_its_contract() -> None:
    """Who adds a verifier, a scorer or a backend adds it above."""
    kinds = {
        "verifier": VerifierContract,
        "scorer": ScorerContract,
        "critic": CriticContract,
        "demonstrator": DemonstratorContract,
        "source": QuestionSourceContract,
        "observer": ObserverContract,
    }
    cases = [case for contract in kinds.values() for case in contract.__subclasses__()]
    held = {case.component.name for case in cases if case.__module__ == __name__}
    ours = {p.component.name for kind, p in load() if kind in kinds and _is_ours(p.component.build)}
    assert ours == held
    backends = {
        p.component.name for kind, p in load() if kind == "backend" and _is_ours(p.component.build)
    }
    assert backends == {"scripted", "llama_cpp", "hf"}


def _is_ours(build: Any) -> bool:
    return str(build.__module__).startswith("selfloop_plugins.")


def test_every_component_says_what_it_is() -> None:
    catalog = load()
    assert catalog.broken == {}
    for kind, offer in catalog:
        if _is_ours(offer.component.build):
            assert offer.component.doc, f"{kind} {offer.component.name} has no doc"
            assert not offer.component.doc.endswith(".")
            assert not offer.component.paper or offer.component.paper.startswith("https://")


class _Broken:
    """A verifier that looks at its neighbours, and forgets one of an odd number."""

    def verify(self, claims: Any, judging: Any) -> list[Any]:
        from selfloop import Verdict

        return [Verdict("broken", 1 / len(claims)) for _ in claims][: len(claims) // 2 * 2]


def test_the_contract_can_be_broken() -> None:
    class Case(VerifierContract):
        component = agreement.selfloop_verifiers()[0]

        def build(self) -> Any:
            return _Broken()

    with pytest.raises((AssertionError, StopIteration, IndexError)):
        Case().test_claims_are_judged_apart()
