"""The steps of a round, one by one, on a scripted backend and with parts made here."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Query, Selfloop

from selfloop.config.assembly import NamedComponent, Observers, Pipeline
from selfloop.config.prompts import Prompts
from selfloop.config.recipe import Decide, Recipe
from selfloop.errors import ModelError
from selfloop.events import AttemptEnded, Event, StepStarted, TrainingStep
from selfloop.history import History
from selfloop.protocols import AskContext, Backend, Observer, TuneContext, VerifyContext
from selfloop.records import (
    Adapter,
    AdapterProof,
    Attempt,
    Claim,
    Completion,
    Continuation,
    ModelInfo,
    Question,
    Request,
    Round,
    Sampling,
    Score,
    Verdict,
)
from selfloop.steps.answer import answer
from selfloop.steps.ask import ask
from selfloop.steps.claims import claims_of
from selfloop.steps.context import RoundContext
from selfloop.steps.critique import critique, revise
from selfloop.steps.decide import decide
from selfloop.steps.tune import tune
from selfloop.steps.verify import verify
from selfloop.storage.recorder import Recorder
from selfloop.storage.store import Store
from selfloop.testing import ScriptedBackend

Rates = Mapping[str, float | None]  # candidate -> confidence


@dataclass
class Judge:
    """Rates draft and revision as told, and remembers what it was shown."""

    rates: Rates
    seen: list[Claim] = field(default_factory=list)

    def verify(self, claims: Sequence[Claim], verify_context: object) -> list[Verdict]:
        self.seen += claims
        return [Verdict("", self.rates.get(c.candidate), "as told") for c in claims]


@dataclass
class Listed:
    """Hands out what it has, so many at a time, and remembers how many it was asked for."""

    texts: list[str]
    at_once: int = 1000
    asked: list[int] = field(default_factory=list)

    def ask(self, ask_context: AskContext) -> list[Question]:
        self.asked.append(ask_context.n)
        count = min(ask_context.n, self.at_once)
        given, self.texts = self.texts[:count], self.texts[count:]
        return [Question(text, "listed") for text in given]


class Length:
    """Scores a question by its words."""

    def score(self, questions: Sequence[Question], ask_context: AskContext) -> list[Score]:
        return [Score("", float(len(q.text.split())), "by its words") for q in questions]


@dataclass
class Seen:
    """An observer that keeps what it is told."""

    events: list[Event] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass


Make = Callable[..., RoundContext]


@pytest.fixture
def new_context(tmp_path: Path) -> Iterator[Make]:
    """Make the context of round 1 of a recipe; `parts` take the place of the recipe's."""
    stores: list[Store] = []

    def _new_context(
        recipe: Mapping[str, Any] | None = None,
        *,
        backend: ScriptedBackend | None = None,
        history: History | None = None,
        observer: Observer | None = None,
        **parts: Any,
    ) -> RoundContext:
        said = {
            "name": "test",
            "backend": "scripted",
            "ask": {"sources": ["listed"]},
            **(recipe or {}),
        }
        store = Store(tmp_path / f"run-{len(stores)}", write=True)
        stores.append(store)
        store.begin_session({})
        observers = Observers([NamedComponent("seen", observer)] if observer else [])
        recorder = Recorder(backend or ScriptedBackend(), store, observers.emit)
        given = {
            "sources": [],
            "scorers": [],
            "detectors": [],
            "critic": None,
            "few_shot": None,
            "tuner": None,
            **parts,
        }
        made = Pipeline(
            recorder,
            observers=observers,
            prompts=Prompts(),
            folder=store.folder,
            plugins={},
            **given,
        )
        history = history or History()
        context = RoundContext(history.rounds + 1, Recipe.model_validate(said), made, history)
        # a step that is left open would be named in the progress lines of all later tests
        return open_contexts.enter_context(context)

    with ExitStack() as open_contexts:
        yield _new_context
    for store in stores:
        store.close()


def answered(draft: str = "Cairo", revision: str | None = None) -> Attempt:
    return Attempt(
        Question("What is the capital of Egypt?", "test"),
        draft=Completion(draft),
        samples=(Completion("Cairo"), Completion("Giza", sample=1)),
        revision=None if revision is None else Completion(revision),
    )


def decided(context: RoundContext, attempt: Attempt) -> Attempt:
    (one,) = decide(context, verify(context, [attempt]))
    return one


def judges(*rates: Rates) -> list[NamedComponent[Judge]]:
    return [NamedComponent(f"judge{i}", Judge(each)) for i, each in enumerate(rates)]


# --- decide


@pytest.mark.parametrize(
    ("rates", "chosen", "confidence"),
    [
        ([{"draft": 0.5, "revision": 0.9}], "revision", 0.9),
        ([{"draft": 0.9, "revision": 0.5}], "draft", 0.9),
        ([{"draft": 0.7, "revision": 0.7}], "draft", 0.7),
        ([{"draft": 0.2, "revision": None}], "draft", 0.2),
        ([{"draft": None, "revision": 0.9}], "draft", None),
        # the last one that judged both is heard; the confidence is that of the last one that judged
        # the chosen one
        ([{"draft": 0.5, "revision": 0.6}, {"draft": 1.0, "revision": None}], "revision", 0.6),
        ([{"draft": 0.5, "revision": 0.4}, {"draft": None, "revision": 1.0}], "draft", 0.5),
        ([{"draft": 0.2, "revision": 0.9}, {"draft": 0.4, "revision": 0.3}], "draft", 0.4),
        ([{"draft": 0.9, "revision": 0.2}, {"draft": 0.3, "revision": 0.4}], "revision", 0.4),
    ],
)
def test_a_revision_must_be_rated_higher(
    rates: list[Rates], chosen: str, confidence: float | None, new_context: Make
) -> None:
    one = decided(new_context(detectors=judges(*rates)), answered("Giza", "Cairo"))
    assert (one.chosen, one.confidence) == (chosen, pytest.approx(confidence))
    assert one.answer == ("Cairo" if chosen == "revision" else "Giza")


@pytest.mark.parametrize(
    ("confidence", "decision"),
    [
        (1.0, "belief"),
        (0.6, "belief"),
        (0.59, "undecided"),
        (0.31, "undecided"),
        (0.3, "declined"),
        (0.0, "declined"),
    ],
)
def test_thresholds(confidence: float, decision: str, new_context: Make) -> None:
    one = decided(new_context(detectors=judges({"draft": confidence})), answered())
    assert (one.decision, one.confidence) == (decision, confidence)
    assert f"{confidence:.2f}" in one.reason


@pytest.mark.parametrize(
    ("risk", "confidences", "beliefs"),
    [
        (0.2, [0.9, 0.8, 0.7, 0.1], 3),  # 0.1, 0.15, 0.2 of them wrong
        (0.19, [0.9, 0.8, 0.7, 0.1], 2),
        (0.05, [0.9, 0.8], 0),
        (0.25, [1.0, 0.6, 0.6], 1),  # what is equally sure stands or falls together
        (0.27, [1.0, 0.6, 0.6], 3),
        (0.0, [1.0, 0.99], 1),
        (1.0, [0.5, 0.4], 2),
        (0.2, [], 0),
    ],
)
def test_a_risk_sets_the_threshold(risk: float, confidences: list[float], beliefs: int) -> None:
    """The oracle tries every threshold there is."""
    how = Decide(risk=risk)
    threshold = how.threshold(confidences)
    assert sum(c >= threshold for c in confidences) == beliefs
    kept = [[c for c in confidences if c >= at] for at in confidences]
    assert beliefs == max(
        [len(some) for some in kept if sum(1 - c for c in some) <= (risk + 1e-9) * len(some)],
        default=0,
    )


def test_a_risk_is_that_of_the_round(new_context: Make) -> None:
    told = new_context({"decide": {"risk": 0.2}})
    rated = [replace(answered(), verdicts=(Verdict("v", c),)) for c in (0.9, 0.8, 0.7, 0.5, 0.2)]
    assert [a.decision for a in decide(told, rated)] == ["belief"] * 3 + [
        "undecided",
        "declined",
    ]


def test_undecided_when_all_abstain(new_context: Make) -> None:
    one = decided(new_context(detectors=judges({}, {})), answered())
    assert (one.decision, one.confidence, one.reason) == (
        "undecided",
        None,
        "no detector could tell",
    )
    assert [v.confidence for v in one.verdicts] == [None, None]


@pytest.mark.parametrize("text", ["I don't know.", "", " I'm not sure", "unknown"])
def test_an_answer_that_is_none_is_declined_however_sure(text: str, new_context: Make) -> None:
    one = decided(new_context(detectors=judges({"draft": 1.0})), answered(text))
    assert (one.decision, one.reason) == ("declined", "the model declined")


# --- verify


def test_a_detector_sees_a_revision_only_if_it_says_something_else(new_context: Make) -> None:
    same, other = Judge({}), Judge({})
    verify(new_context(detectors=[NamedComponent("same", same)]), [answered("Cairo", "The cairo!")])
    verify(new_context(detectors=[NamedComponent("other", other)]), [answered("Giza", "Cairo")])
    assert [c.candidate for c in same.seen] == ["draft"]
    assert [c.candidate for c in other.seen] == ["draft", "revision"]
    assert [s.text for s in other.seen[1].samples] == ["Cairo", "Giza", "Giza"], (
        "the draft is one more sample"
    )


@dataclass
class Second:
    """Has the detectors before it judge the claim again without its samples."""

    seen: list[Any] = field(default_factory=list)

    def verify(self, claims: Sequence[Claim], verify_context: VerifyContext) -> list[Verdict]:
        self.seen += [
            (claim.verdicts, verify_context.earlier_verdicts([replace(claim, samples=())]))
            for claim in claims
        ]
        return [Verdict("", None, "listens")] * len(claims)


@dataclass
class Counts:
    """Is as sure as there are samples; breaks at none if it is told to."""

    breaks: bool = False

    def verify(self, claims: Sequence[Claim], verify_context: VerifyContext) -> list[Verdict]:
        return [
            Verdict("", len(c.samples) / (2 if c.samples or not self.breaks else 0)) for c in claims
        ]


def test_a_detector_is_shown_what_those_before_it_say_and_may_ask_again(new_context: Make) -> None:
    second = Second()
    judged = [
        NamedComponent("counts", Counts()),
        NamedComponent("fragile", Counts(breaks=True)),
        NamedComponent("second", second),
    ]
    attempt = decided(new_context(detectors=judged), answered())
    own = (Verdict("counts", 1.0), Verdict("fragile", 1.0))
    assert second.seen == [(own, [(Verdict("counts", 0.0),)])]
    assert attempt.verdicts == (*own, Verdict("second", None, "listens"))
    assert (attempt.confidence, attempt.failures) == (1.0, ()), (
        "what broke was a question of the second's"
    )


def test_what_a_broken_detector_says_is_a_failure_and_the_others_decide(new_context: Make) -> None:
    attempt = decided(
        new_context(detectors=judges({"draft": 1.5}, {"draft": float("nan")}, {"draft": 0.9})),
        answered(),
    )
    assert (attempt.decision, attempt.confidence) == ("belief", 0.9)
    assert [f.component for f in attempt.failures] == ["judge0", "judge1"]
    assert len(attempt.verdicts) == 1


# --- ask


WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
QUESTIONS = [f"Question number {word}?" for word in WORDS]


def test_shares_of_sources(new_context: Make) -> None:
    some, other = Listed(list(QUESTIONS)), Listed([q.upper() for q in QUESTIONS])
    made = new_context(
        {"ask": {"sources": ["listed"], "questions": 8}},
        sources=[NamedComponent("a", some, weight=3), NamedComponent("b", other)],
    )
    assert len(ask(made)) == 8
    assert (some.asked, other.asked) == ([6], [2])


def test_a_surplus_is_cut_off_in_proportion_to_the_shares(new_context: Make) -> None:
    """Sources that give more than they are asked for do not push the others out."""

    class Eager(Listed):
        def ask(self, ask_context: AskContext) -> list[Question]:
            return [Question(text, "eager") for text in self.texts]

    lower, upper = Eager(list(QUESTIONS)), Eager([q.upper() for q in QUESTIONS])
    made = new_context(
        {"ask": {"sources": ["listed"], "questions": 8}},
        sources=[NamedComponent("a", lower, weight=3), NamedComponent("b", upper)],
    )
    texts = [attempt.question.text for attempt in ask(made)]
    # positions 0, 1/3, 2/3, 1, ... and 0, 1, 2; of equal ones the first source's comes first
    first, second = QUESTIONS, [q.upper() for q in QUESTIONS]
    assert texts == [first[0], second[0], *first[1:4], second[1], *first[4:6]]


def test_a_dry_source_is_left_alone_and_the_others_fill_up(new_context: Make) -> None:
    dry, full = Listed([]), Listed(list(QUESTIONS))
    made = new_context(
        {"ask": {"sources": ["listed"], "questions": 6}},
        sources=[NamedComponent("dry", dry), NamedComponent("full", full)],
    )
    assert [a.question.text for a in ask(made)] == QUESTIONS[:6]
    assert (dry.asked, full.asked) == ([3], [3, 3])


def test_a_round_without_questions_is_empty(new_context: Make) -> None:
    dry = Listed([])
    assert ask(new_context(sources=[NamedComponent("dry", dry)])) == []
    assert len(dry.asked) == 1


def test_a_source_is_asked_again_only_so_often(new_context: Make) -> None:
    slow = Listed(list(QUESTIONS), at_once=1)
    made = new_context(
        {"ask": {"sources": ["listed"], "questions": 9, "max_turns": 4}},
        sources=[NamedComponent("slow", slow)],
    )
    assert len(ask(made)) == 4
    assert slow.asked == [9, 8, 7, 6]


def test_dropped_questions_stay_on_record_with_a_reason(new_context: Make) -> None:
    texts, seen = ["Too short?", "This one is long enough?", "So is this one here?"], Seen()
    made = new_context(
        {"ask": {"sources": ["listed"], "questions": 2}},
        sources=[NamedComponent("listed", Listed(texts))],
        scorers=[NamedComponent("length", Length(), min_score=4.0)],
        observer=seen,
    )
    attempts = ask(made)
    assert [a.decision for a in attempts] == ["dropped", None, None]
    assert attempts[0].reason == "length: by its words"
    assert attempts[0].scores == (Score("length", 2.0, "by its words"),)
    assert [e.attempt for e in seen.events if isinstance(e, AttemptEnded)] == [attempts[0]]
    assert History().with_attempts(attempts).dropped == ("Too short?",)


def test_more_questions_than_wanted_are_left_for_later(new_context: Make) -> None:
    class Eager(Listed):
        def ask(self, ask_context: AskContext) -> list[Question]:
            return [Question(text, "eager") for text in self.texts]

    made = new_context(
        {"ask": {"sources": ["listed"], "questions": 3}},
        sources=[NamedComponent("eager", Eager(QUESTIONS[:5]))],
    )
    attempts = ask(made)
    assert [a.question.text for a in attempts] == QUESTIONS[:3]
    assert all(a.live for a in attempts)


def test_two_sources_of_one_kind_are_two(new_context: Make) -> None:
    short, long = Listed(QUESTIONS[:1]), Listed(QUESTIONS[1:])
    made = new_context(
        {"ask": {"sources": ["listed"], "questions": 6}},
        sources=[NamedComponent("file", short), NamedComponent("file-2", long)],
    )
    assert len(ask(made)) == 6


def test_no_question_of_the_user_is_lost(
    write: Callable[[Mapping[str, str]], Path], selfloop: Selfloop, query: Query
) -> None:
    sources = "[topics, {kind: file, path: q.txt}]"
    ask_part = f"ask: {{questions: 2, scorers: [], sources: {sources}}}"
    recipe = f"rounds: 4\nbackend: scripted\n{ask_part}\n"
    folder = write({"q.txt": "Who was the first?\nWho was the last?\n", "recipe.yaml": recipe})
    assert selfloop("run", "recipe.yaml").code == 0
    rows = query(
        folder / "runs/recipe",
        "SELECT question FROM attempts WHERE source = 'file' AND decision != 'dropped'",
    )
    assert {question for (question,) in rows} == {"Who was the first?", "Who was the last?"}


# --- answer, critique, revise


def test_answer_draws_a_greedy_draft_and_samples(new_context: Make) -> None:
    made = new_context({"answer": {"samples": 5}})
    (one,) = answer(made, [Attempt(Question("What is it?", "test"))])
    assert one.draft is not None
    assert [s.sample for s in one.samples] == [0, 1, 2, 3, 4]
    assert answer(made, [Attempt(Question("What is it?", "test"))]) == [one], (
        "asked again, it is the same"
    )


class FarFromTheThresholds:
    """Is the surer the larger the number in a question; it abstains on "unknown"."""

    def __init__(self) -> None:
        self.counts: list[int] = []  # of the samples of each claim that it saw

    def verify(self, claims: Sequence[Claim], verify_context: object) -> list[Verdict]:
        self.counts += [len(claim.samples) for claim in claims]
        return [self._verdict(claim.question.text) for claim in claims]

    def _verdict(self, text: str) -> Verdict:
        number = text.removeprefix("Number ").rstrip("?")
        if number == "unknown":
            return Verdict("", None, "cannot tell")
        return Verdict("", int(number) / 1000, "by its number")


def numbered_attempts(numbers: Sequence[object]) -> list[Attempt]:
    return [Attempt(Question(f"Number {number}?", "test")) for number in numbers]


def test_auto_samples_go_by_chance_and_to_what_is_not_settled(new_context: Make) -> None:
    decide_options = {"belief": 0.6, "declined": 0.3}
    far = [*range(1, 150), *range(850, 999)]  # far from both thresholds
    near = [305, 598, 601]
    detector = FarFromTheThresholds()
    made = new_context(
        {"answer": {"samples": "auto"}, "decide": decide_options},
        detectors=[NamedComponent("far", detector)],
    )
    attempts = answer(made, numbered_attempts([*far, *near, "unknown"]))
    sampled = [attempt for attempt in attempts if attempt.samples]
    assert {len(attempt.samples) for attempt in sampled} == {8}
    assert all(attempt.draft for attempt in attempts)
    # a quarter, and the one that no detector can judge
    assert len(sampled) in {round(0.25 * len(attempts)), round(0.25 * len(attempts)) + 1}
    texts = {attempt.question.text for attempt in sampled}
    assert {f"Number {number}?" for number in (*near, "unknown")} <= texts
    # by chance: some that are as settled as can be
    assert len(texts & {f"Number {number}?" for number in [*range(1, 60), *range(940, 999)]}) > 5
    again = answer(
        new_context(
            {"answer": {"samples": "auto"}, "decide": decide_options},
            detectors=[NamedComponent("far", FarFromTheThresholds())],
        ),
        numbered_attempts([*reversed(far), "unknown", *near]),
    )
    assert {a.question.text for a in again if a.samples} == texts, "in any order of questions"


def test_few_questions_all_get_auto_samples(new_context: Make) -> None:
    made = new_context({"answer": {"samples": "auto"}})
    attempts = answer(made, numbered_attempts(range(40)))
    assert {len(attempt.samples) for attempt in attempts} == {8}


def test_no_samples_at_all(new_context: Make) -> None:
    backend = ScriptedBackend()
    made = new_context({"answer": {"samples": 0}}, backend=backend)
    (one,) = answer(made, numbered_attempts([1]))
    assert one.draft and one.samples == () and one.live


def test_the_same_question_in_another_round_draws_other_samples(new_context: Make) -> None:
    attempts = [Attempt(Question("What is it?", "test"))]
    first, second = (
        new_context({"answer": {"samples": 12}}),
        new_context({"answer": {"samples": 12}}, history=History(rounds=1)),
    )
    assert answer(first, attempts)[0].samples != answer(second, attempts)[0].samples


def test_without_critique_nothing_is_criticised(new_context: Make) -> None:
    made = new_context({"critique": "none"})
    attempts = [answered()]
    assert revise(made, critique(made, attempts)) == attempts


@dataclass
class Critical:
    """Says the same of every draft; the prompt that revises is the recipe's."""

    text: str = "The answer is wrong."
    revise_prompt: str = "revise"

    def critique(self, claims: Sequence[Claim], verify_context: VerifyContext) -> list[Completion]:
        return [Completion(self.text) for _ in claims]


def test_a_revision_has_the_log_probabilities_it_has_after_the_bare_question(
    new_context: Make,
) -> None:
    backend = ScriptedBackend({"Corrected answer:": ["Giza"], "": ["Cairo"]})
    made = new_context(critic=NamedComponent("plain", Critical()), backend=backend)
    (one,) = revise(made, critique(made, [answered("Cairo")]))
    assert one.critique is not None and one.critique.text == "The answer is wrong."
    assert one.revision is not None and one.revision.text == "Giza"
    bare = Continuation(made.prompt("answer", question=one.question.text), " Giza\n")
    assert [one.revision.logprobs] == backend.loglikelihood([bare])
    (claim,) = [c for c in claims_of(one) if c.candidate == "revision"]
    assert claim.answer == one.revision


def test_a_critic_with_nothing_to_say_leaves_the_draft(new_context: Make) -> None:
    made = new_context(critic=NamedComponent("plain", Critical(" ")))
    attempts = [answered()]
    assert revise(made, critique(made, attempts)) == attempts


def test_a_critic_that_raises_costs_the_critique_only(new_context: Make) -> None:
    made = new_context(critic=NamedComponent("plain", object()))
    (one,) = revise(made, critique(made, [answered()]))
    assert one.live and one.revision is None
    assert [(f.step, f.component, f.type) for f in one.failures] == [
        ("critique", "plain", "AttributeError")
    ]


class Shown:
    """Shows each question with itself, and remembers what it was asked for."""

    def __init__(self, short: int = 0) -> None:
        self.asked, self.short = list[list[str]](), short

    def build_prompts(self, questions: Sequence[str], verify_context: VerifyContext) -> list[str]:
        self.asked.append(list(questions))
        return [f"Shown. {text} Answer:" for text in questions][self.short :]


def test_a_demonstrator_makes_the_answer_prompts_in_one_call(new_context: Make) -> None:
    shown, backend = Shown(), ScriptedBackend({r"Shown\. Is (\w+)": ["yes {1}"]})
    made = new_context(few_shot=NamedComponent("own", shown), backend=backend)
    asked = [Attempt(Question(f"Is {name} it?", "test")) for name in ("Ada", "Bob")]
    done = answer(made, asked)
    assert [one.answer for one in done] == ["yes Ada", "yes Bob"]
    assert made.prompt("answer", question="Is Ada it?") == "Shown. Is Ada it? Answer:"
    assert shown.asked == [["Is Ada it?", "Is Bob it?"]]
    assert made.prompt("critique", question="Q?", draft="A") == made.recipe_prompt(
        "critique", question="Q?", draft="A"
    )


def test_without_prompts_nothing_is_answered(new_context: Make) -> None:
    made = new_context(few_shot=NamedComponent("own", Shown(short=1)))
    (one,) = answer(made, [Attempt(Question("Is it?", "test"))])
    assert (one.decision, one.failures[0].component) == ("failed", "own")


def believed(answer: str, confidence: float) -> History:
    said = replace(answered(answer), decision="belief", confidence=confidence)
    return History().after(Round(1, (said,)))


def test_an_answer_that_contradicts_a_belief_lowers_both(new_context: Make) -> None:
    """p(1 - q) / (1 - pq) of .9 and .8: .18 / .28 and .08 / .28."""
    asked = Question(
        "Egypt has which capital?", "again", variant_of=answered().question.text, variant="reworded"
    )
    made = new_context(history=believed("Cairo", 0.9), detectors=judges({"draft": 0.8}))
    (one,) = decide(made, verify(made, [replace(answered("Giza"), question=asked)]))
    assert one.lowers is not None
    assert (one.confidence, one.lowers.confidence) == (
        pytest.approx(0.08 / 0.28),
        pytest.approx(0.18 / 0.28),
    )
    assert (one.decision, one.lowers.decision) == ("declined", "belief"), "still above .6"
    assert "contradicts 'What is the capital of Egypt?': Cairo" in one.reason
    assert [b.confidence for b in made.history.with_attempts([one]).beliefs] == [
        pytest.approx(0.18 / 0.28)
    ]


def test_a_belief_that_falls_below_the_threshold_is_none_any_more(new_context: Make) -> None:
    asked = Question(
        "Egypt has which capital?", "again", variant_of=answered().question.text, variant="reworded"
    )
    made = new_context(history=believed("Cairo", 0.8), detectors=judges({"draft": 0.8}))
    (one,) = decide(made, verify(made, [replace(answered("Giza"), question=asked)]))
    assert one.lowers is not None and one.lowers.decision == "undecided"
    after = made.history.after(Round(2, (one,)))
    assert after.beliefs == ()
    assert after.questions == ("What is the capital of Egypt?", "Egypt has which capital?")


def test_steps_leave_alone_what_has_ended(new_context: Make) -> None:
    gone = Attempt(Question("Gone?", "test"), decision="dropped", reason="x")
    made = new_context(detectors=judges({"draft": 1.0}))
    for step in (answer, critique, revise, verify, decide):
        assert step(made, [gone]) == [gone]


def test_a_request_that_is_refused_fails_alone(new_context: Make) -> None:
    made = new_context(
        {"answer": {"samples": 2, "max_tokens": 5}}, backend=ScriptedBackend(context=80)
    )
    attempts = [
        Attempt(Question(text, "test")) for text in ("Who was it?", "who " * 90, "What was it?")
    ]
    done = answer(made, attempts)
    assert [a.decision for a in done] == [None, "failed", None]
    assert done[1].failures[0].type == "RequestError"
    assert "over the context of 80" in done[1].reason


# --- tune


@dataclass
class Tuner:
    """Makes an adapter of what it is given to learn."""

    rounds: list[int] = field(default_factory=list)

    def tune(self, tune_context: TuneContext) -> Adapter | None:
        self.rounds.append(tune_context.round)
        tune_context.on_batch(1, 2, 0.5)
        (tune_context.folder / "weights").write_text(str(len(tune_context.history.beliefs)))
        return Adapter(str(tune_context.folder / "weights"), f"sha-{tune_context.round}")


class Refusing(ScriptedBackend):
    """Takes the first adapter; refuses others and leaves the bare model, as llama_cpp does."""

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        super().load_adapter(None)
        if adapter and adapter.sha256 != "sha-1":
            raise ModelError("the adapter changes nothing")
        return super().load_adapter(adapter)


def said_under(context: RoundContext) -> str | None:
    request = Request("Answer:", Sampling())
    ((_, completion),) = context.parts.backend.generate([request])
    assert isinstance(completion, Completion)
    return completion.adapter


def test_tune_runs_every_so_many_rounds(new_context: Make) -> None:
    tuner = Tuner()
    recipe = {"tuner": {"kind": "lora", "every": 2}}
    for rounds in range(4):
        made = new_context(
            recipe, history=History(rounds=rounds), tuner=NamedComponent("lora", tuner)
        )
        adapter = tune(made, [])
        assert (adapter is not None) == (made.number % 2 == 0)
        assert said_under(made) == (adapter.sha256 if adapter else None)
    assert tuner.rounds == [2, 4]


def test_what_a_tuner_tells_reaches_the_observers(new_context: Make) -> None:
    seen = Seen()
    tune(
        new_context(
            {"tuner": {"kind": "lora"}}, tuner=NamedComponent("lora", Tuner()), observer=seen
        ),
        [],
    )
    assert seen.events == [StepStarted(1, "tune", 0), TrainingStep(1, 1, 2, 0.5)]


def test_the_tuner_learns_from_this_round_too(new_context: Make) -> None:
    held = History().after(
        Round(1, (decided(new_context(detectors=judges({"draft": 1.0})), answered()),))
    )
    made = new_context(
        {"tuner": {"kind": "lora"}}, history=held, tuner=NamedComponent("lora", Tuner())
    )
    other = replace(answered(), question=Question("Where is the Sphinx?", "test"))
    adapter = tune(made, [decided(new_context(detectors=judges({"draft": 1.0})), other)])
    assert adapter is not None
    assert (made.parts.folder / adapter.path).read_text() == "2"
    assert adapter.round == 2


def test_an_adapter_that_is_refused_leaves_the_last_good_one(new_context: Make) -> None:
    made = new_context(
        {"tuner": {"kind": "lora"}}, backend=Refusing(), tuner=NamedComponent("lora", Tuner())
    )
    first = tune(made, [])
    assert said_under(made) == "sha-1"
    made.number, made.history = 2, History(rounds=1, adapter=first)
    assert tune(made, []) is None
    assert [f.type for f in made.failures] == ["ModelError"]
    made.number = 3
    request = Request("Something else. Answer:", Sampling())
    ((_, completion),) = made.parts.backend.generate([request])
    assert isinstance(completion, Completion)
    assert completion.adapter == "sha-1"


TUNER = """
import hashlib, json, os, signal
from pathlib import Path
from selfloop import Component, hookimpl
from selfloop.records import Adapter

class Tuner:
    def tune(self, context):
        text = json.dumps([context.round, len(context.attempts)])
        (context.folder / "adapter").write_text(text)
        if context.round == 2 and Path("kill").exists():
            Path("kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return Adapter(str(context.folder / "adapter"), hashlib.sha256(text.encode()).hexdigest())

@hookimpl
def selfloop_tuners():
    return [Component("toy", Tuner)]
"""
TUNED = """
rounds: 4
plugins: [tuner.py]
backend: scripted
ask: {questions: 2, sources: [blank_slate, topics]}
answer: {samples: 2}
tuner: {kind: toy, every: 2}
"""


def tuned(run: Path, query: Query) -> tuple[list[tuple[int, str | None, str | None]], list[str]]:
    """Return (round, adapter of its drafts, adapter it made), and all completions."""
    rows = query(
        run,
        "SELECT DISTINCT r.number, json_extract(a.data, '$.draft.adapter'), "
        "json_extract(r.adapter, '$.sha256')"
        " FROM rounds r JOIN attempts a ON a.round = r.number WHERE json_extract(a.data, "
        "'$.draft') IS NOT NULL"
        " ORDER BY 1",
    )
    return rows, query(run, "SELECT key, sample, data FROM completions ORDER BY 1, 2")


@pytest.mark.slow
def test_what_follows_is_said_under_the_adapter_also_after_a_kill(
    write: Callable[[Mapping[str, str]], Path], selfloop: Selfloop, query: Query
) -> None:
    folder = write({"tuner.py": TUNER, "recipe.yaml": TUNED})
    assert selfloop("run", "recipe.yaml").code == 0
    # not --runs: the path of an adapter is part of what is replied
    (folder / "runs").rename(folder / "whole")
    rounds, completions = tuned(folder / "whole/recipe", query)
    made = rounds[1][2]
    assert made is not None
    assert [(under, adapter is not None) for _, under, adapter in rounds] == [
        (None, False), (None, True), (made, False), (made, True),
    ]  # fmt: skip

    (folder / "kill").touch()  # in the middle of tuning
    line = [sys.executable, "-m", "selfloop.cli", "run", "recipe.yaml"]
    assert subprocess.run(line, capture_output=True, timeout=30).returncode == -signal.SIGKILL
    text = (folder / "runs/recipe/recipe.yaml").read_text()
    (folder / "runs/recipe/recipe.yaml").write_text(text.replace("rounds: 4", "rounds: 3"))
    assert selfloop("resume", "recipe").code == 0  # tunes, and ends after round 3
    (folder / "runs/recipe/recipe.yaml").write_text(text)
    # loads the adapter that round 2 made, and plays round 4
    assert selfloop("resume", "recipe").code == 0
    assert tuned(folder / "runs/recipe", query) == (rounds, completions)
    proof = query(
        folder / "runs/recipe",
        "SELECT count(*) FROM completions WHERE json_extract(data, '$.adapter') = ?",
        made,
    )
    assert proof[0][0] > 0
    assert json.loads((folder / "runs/recipe/adapters/round-002/adapter").read_text())[0] == 2


# --- base and tuned model

ADAPTER = Adapter("weights", "sha-1")


class Watched(ScriptedBackend):
    """Notes each call with the adapter that it is under, and each swap."""

    def __init__(self, script: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(script) if script else super().__init__()
        self.calls: list[tuple[str, str | None, Any]] = []
        self.swaps: list[str | None] = []
        self.breaks = False

    def _note(self, call: str, asked: Sequence[Any]) -> None:
        self.calls.append((call, self._adapter.sha256 if self._adapter else None, tuple(asked)))

    def generate(self, requests: Sequence[Request]) -> Iterator[Any]:
        self._note("generate", requests)
        return super().generate(requests)

    def loglikelihood(self, pairs: Sequence[Continuation]) -> Any:
        self._note("read", pairs)
        return super().loglikelihood(pairs)

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        super().load_adapter(None)  # whatever happens, the one before is gone
        if self.breaks:
            raise ModelError("no memory for it")
        self.swaps.append(adapter.sha256 if adapter else None)
        return super().load_adapter(adapter)

    def under(self, call: str) -> list[str | None]:
        return [adapter for name, adapter, _ in self.calls if name == call]


class ByAdapter(Watched):
    """The tuned model answers some questions otherwise than the base."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Any]:
        for index, completion in super().generate(requests):
            is_tuned = self._adapter is not None
            if is_tuned and "Peru" in str(requests[index].prompt):
                completion = replace(completion, text="Lima", tokens=(4,), logprobs=(-0.5,))
            elif is_tuned and "Mars" in str(requests[index].prompt):
                completion = replace(completion, text="I don't know", tokens=(9,))
            yield index, completion


def tuned_context(new_context: Make, backend: Watched, **more: Any) -> RoundContext:
    """Return the context of a round that begins under an adapter."""
    made = new_context(backend=backend, **more)
    made.parts.backend.load_adapter(ADAPTER)
    backend.swaps.clear()
    return made


def of_questions(*texts: str) -> list[Attempt]:
    return [Attempt(Question(text, "test")) for text in texts]


@dataclass
class Asker:
    """A detector, source, scorer and few-shot selector that asks the backend it is lent."""

    asked: list[str] = field(default_factory=list)
    under: list[str | None] = field(default_factory=list)
    breaks: bool = False

    def _ask(self, backend: Backend) -> None:
        ((_, completion),) = backend.generate([Request(f"{len(self.under)}?", Sampling())])
        assert isinstance(completion, Completion)
        self.under.append(completion.adapter)
        if self.breaks:
            raise ValueError("broken")

    def verify(self, claims: Sequence[Claim], context: VerifyContext) -> list[Verdict]:
        self._ask(context.backend)
        context.earlier_verdicts(claims)
        self._ask(context.backend)
        return [Verdict("", 0.5) for _ in claims]

    def ask(self, context: AskContext) -> list[Question]:
        self._ask(context.backend)
        return [Question(f"What is number {len(self.under)}?", "test")]

    def score(self, questions: Sequence[Question], context: AskContext) -> list[Score]:
        self._ask(context.backend)
        return [Score("", 1.0) for _ in questions]

    def build_prompts(self, questions: Sequence[str], context: VerifyContext) -> list[str]:
        self._ask(context.backend)
        return [f"{text} Answer:" for text in questions]


@pytest.mark.parametrize("under", [None, "sha-1"])
def test_the_base_asks_unless_the_recipe_says_otherwise(
    under: str | None, new_context: Make
) -> None:
    said: dict[str, Any] = {"questions": 1, "sources": ["listed"]}
    if under:
        said["with"] = "tuned"
    source, scorer = Asker(), Asker()
    made = tuned_context(
        new_context,
        Watched(),
        recipe={"ask": said},
        sources=[NamedComponent("s", source)],
        scorers=[NamedComponent("t", scorer)],
    )
    assert [attempt.live for attempt in ask(made)] == [True]
    assert source.under == [under]
    assert scorer.under == [under]


def test_the_tuned_model_answers_and_the_base_judges(new_context: Make) -> None:
    backend = ByAdapter({r"Answer:\s*$": ["Cairo"]})
    made = tuned_context(new_context, backend)
    questions = ("Where is the Sphinx?", "What is the capital of Peru?", "Who is on Mars?")
    same, other, declined = done = answer(made, of_questions(*questions))
    assert [attempt.answer for attempt in done] == ["Cairo", "Lima", "I don't know"]
    assert {attempt.draft.adapter for attempt in done if attempt.draft} == {"sha-1"}
    for attempt in done:
        assert {sample.adapter for sample in attempt.samples} == {None}
    # one batch of drafts, one of drafts and samples of the base, and one reading of those that
    # differ: two swaps, however many questions there are
    assert backend.under("generate") == ["sha-1", None]
    assert backend.under("read") == [None]
    assert len(backend.calls[-1][2]) == 2
    assert backend.swaps == [None]
    # the measurements are the base's
    plain = new_context(backend=ScriptedBackend({r"Answer:\s*$": ["Cairo"]}))
    (of_base,) = answer(plain, of_questions(questions[0]))
    assert of_base.draft is not None
    assert same.draft == replace(of_base.draft, adapter="sha-1")
    bare = ScriptedBackend({r"Answer:\s*$": ["Cairo"]})
    for attempt, text in ((other, " Lima\n"), (declined, " I don't know\n")):
        prompt = made.prompt("answer", question=attempt.question.text)
        assert attempt.draft is not None
        assert [attempt.draft.logprobs] == bare.loglikelihood([Continuation(prompt, text)])
        assert attempt.draft.tokens == ()
        assert attempt.draft.entropies is None
    assert made.agreement == pytest.approx(1 / 3)


@pytest.mark.parametrize("model", ["base", "tuned"])
def test_one_model_answers_and_judges_in_one_batch(model: str, new_context: Make) -> None:
    backend = Watched()
    options = {"with": model, "samples_with": model}
    made = tuned_context(new_context, backend, recipe={"answer": options})
    (one,) = answer(made, of_questions("Where is the Sphinx?"))
    under = "sha-1" if model == "tuned" else None
    assert one.draft is not None and one.draft.adapter == under
    assert {sample.adapter for sample in one.samples} == {under}
    assert backend.under("generate") == [under]
    assert backend.under("read") == []
    assert made.agreement is None


@pytest.mark.parametrize("options", [{}, {"with": "base"}, {"samples_with": "tuned"}])
def test_without_an_adapter_there_is_one_model(
    options: Mapping[str, str], new_context: Make
) -> None:
    def asked(said: Mapping[str, str], reads: str) -> list[Any]:
        backend, detector = Watched(), NamedComponent("asker", Asker(), reads=reads)  # type: ignore[arg-type]
        made = new_context(
            {"answer": said},
            backend=backend,
            detectors=[detector],
            critic=NamedComponent("plain", Critical()),
        )
        attempts = answer(made, of_questions("Where is the Sphinx?", "Who was Ada?"))
        verify(made, revise(made, critique(made, attempts)))
        assert backend.swaps == []
        assert made.agreement is None
        return backend.calls

    as_tuned = asked({"with": "tuned", "samples_with": "tuned"}, "tuned")
    assert asked(options, "base") == as_tuned
    assert next(call for call, _, _ in as_tuned) == "generate"


def test_a_given_answer_is_read_and_sampled_by_the_base(new_context: Make) -> None:
    backend = Watched()
    made = tuned_context(new_context, backend)
    given = Attempt(Question("Where is the Sphinx?", "test", answer="Giza"))
    (one,) = answer(made, [given])
    assert one.answer == "Giza"
    assert set(backend.under("generate") + backend.under("read")) == {None}
    assert made.agreement is None


def test_a_backend_that_cannot_read_leaves_a_draft_without_log_probabilities(
    new_context: Make,
) -> None:
    class Blind(ByAdapter):
        def describe(self) -> ModelInfo:
            return replace(super().describe(), capabilities=frozenset({"logprobs", "adapters"}))

        def loglikelihood(self, pairs: Sequence[Continuation]) -> Any:
            raise AssertionError("it has no such capability")

    made = tuned_context(new_context, Blind({r"Answer:\s*$": ["Cairo"]}))
    (one,) = answer(made, of_questions("What is the capital of Peru?"))
    assert one.answer == "Lima"
    assert one.draft is not None and one.draft.logprobs == ()
    assert one.failures == ()


def test_a_draft_that_cannot_be_read_is_judged_without_log_probabilities(
    new_context: Make,
) -> None:
    class Deaf(ByAdapter):
        def loglikelihood(self, pairs: Sequence[Continuation]) -> Any:
            raise ValueError("deaf")

    made = tuned_context(new_context, Deaf({r"Answer:\s*$": ["Cairo"]}))
    (one,) = answer(made, of_questions("What is the capital of Peru?"))
    assert one.live and one.draft is not None and one.draft.logprobs == ()
    assert [(f.step, f.type) for f in one.failures] == [("answer", "ValueError")]


def test_the_tuned_model_revises_and_the_base_reads_the_revision(new_context: Make) -> None:
    backend = Watched({"Corrected answer:": ["Giza"], "": ["Cairo"]})
    made = tuned_context(new_context, backend, critic=NamedComponent("plain", Critical()))
    (one,) = revise(made, critique(made, [answered("Cairo")]))
    assert one.revision is not None and one.revision.adapter == "sha-1"
    assert backend.under("generate") == ["sha-1"]
    assert backend.under("read") == [None]


def test_a_draft_of_another_model_is_no_sample() -> None:
    one = answered("Cairo", "Giza")
    assert one.draft is not None
    _, revision = claims_of(one)
    assert revision.samples == (*one.samples, one.draft)
    _, revision = claims_of(replace(one, draft=replace(one.draft, adapter="sha-1")))
    assert revision.samples == one.samples


def test_a_detector_asks_the_model_that_is_due_to_it(new_context: Make) -> None:
    backend, first, last = Watched(), Asker(), Asker()
    detectors = [
        NamedComponent("flag", first, reads="tuned"),
        NamedComponent("other", last),
    ]
    made = tuned_context(new_context, backend, detectors=detectors)
    verify(made, [answered()])
    # `last` lets `first` judge between its two requests, and goes on with the base
    assert first.under == ["sha-1"] * 4
    assert last.under == [None, None]
    assert made.backend.adapter == ADAPTER


def test_after_a_detector_that_raises_each_still_has_its_model(new_context: Make) -> None:
    backend, broken, last = Watched(), Asker(breaks=True), Asker()
    detectors = [NamedComponent("broken", broken), NamedComponent("other", last, reads="tuned")]
    made = tuned_context(new_context, backend, detectors=detectors)
    (one,) = verify(made, [answered()])
    assert {f.component for f in one.failures} == {"broken"}
    assert set(broken.under) == {None}
    assert set(last.under) == {"sha-1"}
    with pytest.raises(KeyError), made.model("base"):
        assert made.backend.adapter is None
        raise KeyError
    assert made.backend.adapter == ADAPTER


def test_a_swap_that_fails_costs_the_questions_and_no_answer_is_of_the_wrong_model(
    new_context: Make,
) -> None:
    backend = Watched()
    made = tuned_context(new_context, backend)
    backend.breaks = True
    attempts = answer(made, of_questions("Where is the Sphinx?"))
    assert [(a.decision, a.failures[0].type) for a in attempts] == [("failed", "ModelError")]
    backend.breaks = False
    backend.calls.clear()
    (one,) = answer(made, of_questions("Who was Ada?"))
    assert one.live
    assert backend.under("generate") == ["sha-1", None], "the adapter is loaded again"


def test_the_base_chooses_the_examples_for_both(new_context: Make) -> None:
    shown = Asker()
    made = tuned_context(new_context, Watched(), few_shot=NamedComponent("own", shown))
    answer(made, of_questions("Where is the Sphinx?"))
    with made.model("tuned"):
        made.prompt("answer", question="Who was Ada?")
    assert shown.under == [None, None]


def test_a_tuner_has_the_tuned_model(new_context: Make) -> None:
    class Looks(Tuner):
        def tune(self, tune_context: TuneContext) -> Adapter | None:
            request = Request("Which one?", Sampling())
            ((_, completion),) = tune_context.backend.generate([request])
            assert completion.adapter == "sha-1"  # type: ignore[union-attr]
            return super().tune(tune_context)

    backend = Watched()
    made = tuned_context(
        new_context,
        backend,
        recipe={"tuner": {"kind": "lora"}},
        tuner=NamedComponent("lora", Looks()),
    )
    with made.model("base"):
        made.backend.loglikelihood([Continuation("x", "y")])
    assert backend.swaps == [None]
    assert tune(made, []) is not None
    assert made.failures == []


KILLER = """
import json, os, signal
from pathlib import Path
from selfloop import Component, Request, Sampling, Verdict, hookimpl

class Killer:
    def verify(self, claims, context):
        requests = [Request(f"Sure of {claim.question.text}?", Sampling()) for claim in claims]
        said = dict(context.backend.generate(requests[:1]))
        if said and next(iter(said.values())).adapter is None and Path("kill").exists():
            if context.history.rounds == 3:
                Path("kill").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        said = dict(context.backend.generate(requests))
        return [Verdict("", len(said[i].text) / 100) for i in range(len(claims))]

@hookimpl
def selfloop_detectors():
    return [Component("killer", Killer), Component("about", Killer, reads="tuned")]
"""


@pytest.mark.slow
def test_a_kill_while_the_base_is_loaded_resumes_to_the_same(
    write: Callable[[Mapping[str, str]], Path], selfloop: Selfloop, query: Query
) -> None:
    recipe = TUNED.replace("[tuner.py]", "[tuner.py, killer.py]")
    recipe += "detectors: [about, killer]\n"
    folder = write({"tuner.py": TUNER, "killer.py": KILLER, "recipe.yaml": recipe})
    assert selfloop("run", "recipe.yaml").code == 0
    (folder / "runs").rename(folder / "whole")
    under = "SELECT DISTINCT step, json_extract(data, '$.adapter') IS NOT NULL FROM completions"
    steps = set(query(folder / "whole/recipe", f"{under} ORDER BY 1, 2"))
    assert steps == {("ask", 0), ("answer", 0), ("answer", 1), ("verify", 0), ("verify", 1)}

    (folder / "kill").touch()  # in round 4, whose drafts are of the adapter that round 2 made
    line = [sys.executable, "-m", "selfloop.cli", "run", "recipe.yaml"]
    assert subprocess.run(line, capture_output=True, timeout=30).returncode == -signal.SIGKILL
    assert selfloop("resume", "recipe").code == 0
    everything = "SELECT key, sample, step, data FROM completions ORDER BY 1, 2"
    for sql in (
        everything,
        "SELECT round, position, data FROM attempts ORDER BY 1, 2",
        "SELECT value FROM meta WHERE key = 'agreements'",
    ):
        assert query(folder / "runs/recipe", sql) == query(folder / "whole/recipe", sql)
    (agreements,) = query(folder / "runs/recipe", "SELECT value FROM meta WHERE key = 'agreements'")
    assert set(json.loads(str(agreements[0]))) == {"3", "4"}
