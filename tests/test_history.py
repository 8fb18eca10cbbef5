"""Beliefs after all rounds, and how answers that cannot both be right lower each other."""

import time
from dataclasses import replace
from typing import Any

import pytest
from conftest import cpu_limit

from selfloop.contradictions import agree, contradictions, contradicts, origin
from selfloop.history import History
from selfloop.records import Adapter, Attempt, Belief, Completion, Failure, Outcome, Question, Round
from selfloop.text.gist import gist

CAPITAL = "What is the capital of Egypt?"
OTHERWISE = "Egypt has which capital?"
BACK = "Cairo is the capital of which country?"


def believed(answer: str = "Cairo", sure: float = 0.9, text: str = CAPITAL, **more: Any) -> Belief:
    return Belief(Question(text, "test", **more), answer, sure, 1, "sha")


def said(
    answer: str,
    sure: float | None = 0.8,
    text: str = OTHERWISE,
    of: str = CAPITAL,
    variant: Any = "reworded",
) -> Attempt:
    question = Question(text, "again", variant_of=of if variant else "", variant=variant)
    return Attempt(question, draft=Completion(answer), confidence=sure)


def plain(answer: str, text: str, sure: float | None = 0.8) -> Attempt:
    return said(answer, sure, text, variant="")


def ended(attempt: Attempt, decision: Any, **more: Any) -> Attempt:
    return replace(attempt, decision=decision, **more)


def lowered(p: float, q: float) -> float:
    return p * (1 - q) / (1 - p * q)


# --- what answers agree


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("Athens", "Athens, Greece", True),
        ("the Nile", "Nile River.", True),
        ("a cat", "Cats", True),
        ("Cairo", "Giza", False),
        ("Leonardo da Vinci", "Vinci", True),
        ("1912", "1913", False),
        ("New York City", "New Jersey", False),
        ("東京", "東京", True),
        ("東京", "大阪", False),
    ],
)
def test_which_answers_agree(one: str, two: str, same: bool) -> None:
    assert agree(one, two) is agree(two, one) is same


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("What is the capital of Egypt?", "which is capital of egypt", True),
        ("What is the capital of Egypt?", "What is the capital of Sudan?", False),
        ("When was Mozart born?", "Where was Mozart born?", False),
        ("Who beat Ada?", "Who did Ada beat?", False),
        ("Who painted Monet?", "Who was painted by Monet?", False),
        ("Which river flows into the lake?", "Which river flows from the lake?", False),
    ],
)
def test_which_questions_ask_for_the_same(one: str, two: str, same: bool) -> None:
    assert (gist(one) == gist(two)) is same


# --- what contradicts


@pytest.mark.parametrize("answer", ["Giza", "Alexandria, Egypt"])
def test_another_answer_to_the_same_in_other_words_lowers_both(answer: str) -> None:
    (one,) = contradictions([believed()], [said(answer)])
    assert one.confidence == pytest.approx(lowered(0.8, 0.9))
    assert one.reason == f"contradicts {CAPITAL!r}: Cairo"
    assert one.lowers is not None
    low = one.lowers
    assert (low.confidence, low.answer, low.round, low.adapter) == (
        pytest.approx(lowered(0.9, 0.8)),
        "Cairo",
        1,
        "sha",
    )
    assert low.reason == f"contradicted by {OTHERWISE!r}: {answer}"


@pytest.mark.parametrize(
    "attempt",
    [
        said("Cairo, Egypt"),
        said("I don't know"),
        said(""),
        said("Giza", None),
        said("Giza", of="What is the capital of Sudan?"),
        said("Giza", variant="swapped"),
        plain("Giza", "What is the largest city of Egypt?"),
        plain("Giza", CAPITAL),
        ended(said("Giza"), "declined"),
        ended(said("Giza"), "failed"),
        said("Egypt", text=BACK, variant="reversed"),
        said("It is in Egypt", text=BACK, variant="reversed"),
        said("I'm not sure", text=BACK, variant="reversed"),
        said("Cairo", text=BACK, variant="reversed"),  # its own words over again
        # does not say of what
        said("Sudan", text="Which country is it the capital of?", variant="reversed"),
        # names all there is to name
        said("Sudan", text="Is Cairo the capital of Egypt?", variant="reversed"),
    ],
)
def test_what_contradicts_nothing(attempt: Attempt) -> None:
    assert contradictions([believed()], [attempt]) == [attempt]


@pytest.mark.parametrize("answer", ["Sudan", "The capital of France"])
def test_a_reversed_question_that_does_not_lead_back(answer: str) -> None:
    (one,) = contradictions([believed()], [said(answer, text=BACK, variant="reversed")])
    assert one.lowers is not None and one.lowers.confidence == pytest.approx(lowered(0.9, 0.8))


@pytest.mark.parametrize("belief", [believed(), believed(text="Capital of Egypt")])
def test_the_same_words_ask_for_the_same(belief: Belief) -> None:
    (one,) = contradictions([belief], [plain("Giza", "Which is the capital of Egypt?")])
    assert one.lowers is not None and one.lowers.question == belief.question


def test_questions_of_no_words_are_not_the_same() -> None:
    (one,) = contradictions([believed(text="What is?")], [plain("Giza", "Which are?")])
    assert one.lowers is None


def test_contradicts_by_itself() -> None:
    asked = Question(OTHERWISE, "again", variant_of=CAPITAL, variant="reworded")
    assert contradicts(asked, "Giza", believed())
    assert not contradicts(asked, "Cairo", believed())
    assert not contradicts(replace(asked, variant_of="Another?"), "Giza", believed())


# --- over several steps


def test_a_variant_of_a_variant_is_compared_with_the_first() -> None:
    middle = believed("Cairo", 0.7, OTHERWISE, variant_of=CAPITAL, variant="reworded")
    third = said("Giza", text="Egypt's capital is which city?", of=OTHERWISE)
    (one,) = contradictions([believed(), middle], [third])
    assert one.lowers is not None and one.lowers.question.text == CAPITAL, "the surest of the two"
    (one,) = contradictions([middle], [third])
    assert one.lowers is not None and one.lowers.question.text == OTHERWISE


def test_two_that_reword_the_same_are_compared_when_that_is_held_no_more() -> None:
    sibling = believed("Cairo", 0.7, OTHERWISE, variant_of=CAPITAL, variant="reworded")
    (one,) = contradictions([sibling], [said("Giza", text="Egypt's capital is which city?")])
    assert one.lowers is not None and one.lowers.question.text == OTHERWISE


def test_the_first_question_is_compared_with_what_rewords_it() -> None:
    reworded = believed("Cairo", 0.7, OTHERWISE, variant_of=CAPITAL, variant="reworded")
    (one,) = contradictions([reworded], [plain("Giza", CAPITAL)])
    assert one.lowers is not None and one.lowers.question.text == OTHERWISE


def test_a_reversed_one_is_no_rewording_of_what_rewords_it() -> None:
    """The answers to a reworded and to a reversed question differ, as they should."""
    beliefs = [believed(), believed("Egypt", 0.8, BACK, variant_of=CAPITAL, variant="reversed")]
    agreeing = said("Cairo")
    assert contradictions(beliefs, [agreeing]) == [agreeing]
    of_reversed = said("Egypt", text="Of which country is Cairo the capital?", of=BACK)
    assert contradictions(beliefs, [of_reversed]) == [of_reversed]


def test_variants_of_one_another_end() -> None:
    one = Question("A?", "x", variant_of="B?", variant="reworded")
    two = Question("B?", "x", variant_of="A?", variant="reworded")
    known = {q.text: q for q in (one, two)}
    assert origin(one, known) == origin(two, known) == "A?"
    assert origin(replace(one, variant_of="A?"), {}) == "A?"
    assert origin(replace(one, variant="reversed"), known) == "A?"
    assert origin(replace(one, variant="reversed"), {}, ("reworded", "reversed")) == "B?"


# --- several in one round


def test_two_that_contradict_the_same_belief_lower_it_twice() -> None:
    one, two = contradictions(
        [believed()], [said("Giza"), said("Giza", text="Egypt's capital is which city?")]
    )
    assert one.lowers is not None and two.lowers is not None
    once = lowered(0.9, 0.8)
    assert one.lowers.confidence == pytest.approx(once)
    assert two.lowers.confidence == pytest.approx(lowered(once, 0.8))
    assert two.confidence == pytest.approx(lowered(0.8, once))


def test_new_answers_that_contradict_each_other_lower_each_other() -> None:
    attempts = [plain("Cairo", CAPITAL, 0.9), said("Giza")]
    one, two = contradictions([], attempts)
    assert (one.confidence, two.confidence) == (
        pytest.approx(lowered(0.9, 0.8)),
        pytest.approx(lowered(0.8, 0.9)),
    )
    assert (one.lowers, two.lowers) == (None, None)
    assert one.reason == f"contradicted by {OTHERWISE!r}: Giza"
    assert two.reason == f"contradicts {CAPITAL!r}: Cairo"


def test_a_belief_whose_question_is_asked_again_is_superseded() -> None:
    again, other = plain("Giza", CAPITAL, 0.9), said("Giza")
    assert contradictions([believed()], [again, other]) == [again, other]
    unknown = ended(plain("I don't know", CAPITAL), "declined")
    assert contradictions([believed()], [unknown, other]) == [unknown, other]
    failed = ended(plain("", CAPITAL), "failed")
    assert contradictions([believed()], [failed, other])[1].lowers is not None, (
        "nothing was said to it"
    )


@pytest.mark.parametrize(
    ("p", "q"), [(1.0, 1.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.0), (0.0, 1.0), (0.999, 0.999)]
)
def test_certainties(p: float, q: float) -> None:
    """Of two equal certainties each keeps about half; .99 and 1 are alike; no division by zero."""
    (one,) = contradictions([believed(sure=p)], [said("Giza", q)])
    assert (
        one.confidence is not None and one.lowers is not None and one.lowers.confidence is not None
    )
    assert 0 <= one.confidence <= q and 0 <= one.lowers.confidence <= p
    assert one.confidence + one.lowers.confidence <= 1
    if p == q > 0.9:
        assert one.confidence == one.lowers.confidence == pytest.approx(0.4975, abs=1e-3)
    if min(p, q) > 0:
        assert one.confidence < q and one.lowers.confidence < p


# --- what holds


def outcomes(*decisions: str) -> History:
    attempts = [
        (number, ended(plain(f"answer {number}", CAPITAL), decision, confidence=0.5 + number / 10))
        for number, decision in enumerate(decisions, 1)
    ]
    history = History()
    for number, attempt in attempts:
        history = history.after(Round(number, (attempt,)))
    return history


@pytest.mark.parametrize(
    ("decisions", "held"),
    [
        (("belief", "belief"), "answer 2"),
        (("belief", "undecided"), None),
        (("belief", "declined"), None),
        (("declined", "belief"), "answer 2"),
        (("belief", "dropped"), "answer 1"),
        (("belief", "failed"), "answer 1"),
        (("belief", "undecided", "failed"), None),
        (("dropped",), None),
    ],
)
def test_the_last_answer_to_a_question_holds(decisions: tuple[str, ...], held: str | None) -> None:
    history = outcomes(*decisions)
    assert [belief.answer for belief in history.beliefs] == ([held] if held else [])


def test_what_was_asked_and_dropped_each_in_order() -> None:
    history = outcomes("dropped", "belief", "belief", "dropped")
    assert (history.questions, history.dropped) == ((CAPITAL,), (CAPITAL, CAPITAL))
    assert (history.rounds, [o.round for o in history.outcomes]) == (4, [1, 2, 3, 4])


def test_a_lowered_belief_is_out_of_the_next_round() -> None:
    history = History().after(
        Round(1, (ended(plain("Cairo", CAPITAL), "belief"),), Adapter("a", "s", 1))
    )
    (one,) = contradictions(history.beliefs, [said("Giza")])
    after = history.after(Round(2, (ended(one, "undecided"),)))
    assert (after.beliefs, after.adapter) == ((), Adapter("a", "s", 1))
    assert [(o.question.text, o.decision) for o in after.outcomes[1:]] == [
        (OTHERWISE, "undecided"),
        (CAPITAL, "undecided"),
    ]
    kept = replace(
        one, lowers=replace(one.lowers or Outcome(one.question, "belief"), decision="belief")
    )
    (still,) = history.after(Round(2, (ended(kept, "undecided"),))).beliefs
    assert (still.answer, still.round) == ("Cairo", 1)


def test_an_attempt_without_a_draft_is_an_outcome_too() -> None:
    failed = Attempt(Question("Q?", "x")).failed(Failure("answer", "b", "E", "m"))
    (outcome,) = History().with_attempts([failed]).outcomes
    assert (outcome.decision, outcome.answer, outcome.adapter) == ("failed", "", None)


@pytest.mark.slow
def test_fifty_thousand_are_quick() -> None:
    """A few of these a round: linear, or a long run stands still."""
    questions = [
        Question(f"What is the {n % 97}th name of the number {n}?", "x", f"t{n % 30}")
        for n in range(50_000)
    ]
    history = History(
        50,
        tuple(
            Outcome(q, "belief", f"answer {n}", 0.7, 1 + n // 1000) for n, q in enumerate(questions)
        ),
    )
    attempts = [said("no", 0.8, f"Say it: {n}?", questions[n].text) for n in range(1000)]
    began = time.process_time()
    assert len(history.questions) == len(history.beliefs) == 50_000
    assert history.dropped == ()
    done = contradictions(history.beliefs, attempts)
    after = history.with_attempts(done)
    assert time.process_time() - began < cpu_limit(8)
    assert sum(attempt.lowers is not None for attempt in done) == 1000
    assert len(after.outcomes) == 52_000 and len(after.beliefs) == 49_000
