"""The scorers: which texts are questions, and which are new."""

from dataclasses import replace

import pytest
from selfloop_plugins.novelty import Novelty
from selfloop_plugins.well_formed import WellFormed

from selfloop import Question
from selfloop.testing import asking, past_of

GOOD = [
    "What is the capital of Egypt?",
    "In which year did the war end?",
    "Who wrote the play 'Hamlet'?",
    "Name the longest river of Africa?",
    "How many legs does a spider have?",
    "Is the Nile longer than the Amazon?",
    "Where was Ada Lovelace born?",
    "During which war was it built?",
    "When was São Paulo founded?",
    "Which of the planets has rings?",
    "On what continent is Peru?",
]
BAD = [
    ("", "not one question"),
    ("What is the capital of Egypt", "not one question"),
    ("What is it? Who is it?", "not one question"),
    ("What is the\ncapital of Egypt?", "not one question"),
    ("What is it??", "not one question"),
    ("What is that?", "3 words"),
    ("?", "1 words"),
    ("What " + "very " * 30 + "old is it?", "words"),
    ("What is the \x1b[31mcapital of Egypt?", "odd characters"),
    ("- What is the capital of Egypt?", "odd characters"),
    ("The capital of Egypt is what?", "asks nothing"),
    ("Egypt has a capital, right?", "asks nothing"),
    ("What is the name of this river?", "'this'"),
    ("What does the author say here?", "'the author'"),
    ("Where was he born in 1809?", "'he'"),
    ("What is your favourite colour today?", "'your'"),
    ("Which of these is a mammal?", "'these'"),
    ("What is shown in the picture?", "'the picture'"),
]


def well_formed(text: str, **options: int) -> tuple[float, str]:
    (score,) = WellFormed(**options).score([Question(text, "test")], asking())
    return score.value, score.reason


@pytest.mark.parametrize("text", GOOD)
def test_well_formed(text: str) -> None:
    assert well_formed(text) == (1.0, "")


@pytest.mark.parametrize(("text", "reason"), BAD)
def test_ill_formed(text: str, reason: str) -> None:
    value, why = well_formed(text)
    assert value == 0.0
    assert reason in why


@pytest.mark.parametrize("text", ["Who are US presidents of the 1990s?", "What is the US capital city?"])
def test_the_country_is_no_pronoun(text: str) -> None:
    assert well_formed(text) == (1.0, "")


def test_bounds_count_words() -> None:
    assert well_formed("Who is it?", min_words=3)[0] == 1.0
    assert well_formed("Who is it?", min_words=4) == (0.0, "3 words")
    assert well_formed("Who was it then?", min_words=1, max_words=3) == (0.0, "4 words")


def novelty(texts: list[str], asked: tuple[str, ...] = (), dropped: tuple[str, ...] = ()) -> list[float]:
    scores = Novelty().score(
        [Question(text, "test") for text in texts], replace(asking(), past=past_of(asked, dropped))
    )
    return [round(score.value, 2) for score in scores]


EGYPT = "What is the capital of Egypt?"


@pytest.mark.parametrize(
    "text", [EGYPT, "the capital of Egypt is what", "WHAT, is the CAPITAL of Egypt", "Egypt of capital the is What"]
)
def test_the_same_words_in_any_order_are_a_repeat(text: str) -> None:
    assert novelty([text], asked=(EGYPT,)) == [0.0]


def test_the_first_question_ever_is_new() -> None:
    assert novelty([EGYPT]) == [1.0]


def test_a_batch_is_compared_with_itself() -> None:
    assert novelty([EGYPT, EGYPT.lower(), "Who painted the ceiling?"])[:2] == [1.0, 0.0]


def test_near_is_less_new_than_far() -> None:
    near, far = novelty(["What is the capital of Peru?", "Who painted the ceiling of a chapel?"], asked=(EGYPT,))
    assert 0 < near < 0.25 < far < 1


def test_what_was_dropped_may_be_asked() -> None:
    """It was never asked; what it was dropped for, it will be dropped for again."""
    assert novelty([EGYPT], dropped=(EGYPT,)) == [1.0]


def test_the_reason_names_the_nearest() -> None:
    (score,) = Novelty().score([Question(EGYPT, "test")], asking(asked=["Who was it?", EGYPT]))
    assert score.reason == "like 'what is the capital of egypt'"


@pytest.mark.parametrize("text", ["", "???", "\x1b[2J", "\udc80", "富士山はどこですか", "x" * 10_000])
def test_odd_texts_have_a_number_too(text: str) -> None:
    assert 0.0 <= novelty([text, EGYPT], asked=(EGYPT,))[0] <= 1.0
