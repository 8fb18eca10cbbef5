"""Matched pairs of known and unknown questions, and whether style tells them apart."""

import random

import pytest
from selfloop_plugins._shared.pairs import halves, matched, question_texts
from selfloop_plugins._shared.style import balanced, style_auroc, transfer_auroc, transfer_gap

from selfloop import Attempt, Outcome, Question
from selfloop.text.english.forms import entity_span, masked_form

NAMES = [first + last for first in "BCDFGHJKLM" for last in ("ao", "eu", "ia", "on", "ulo")]


def tried(text: str, decision: str = "belief", via: str = "") -> Outcome:
    return Outcome(Question(text, "test", via=via), decision, round=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "via", "found"),
    [
        ("What is the capital of France?", "", "what is the capital of _"),
        ("In which year was Marie Curie born?", "", "in which year was _ born"),
        ('Who wrote "The Great Gatsby" in Paris?', "", "who wrote _ in"),
        ("Who wrote the Lord of the Rings in 1954?", "", "who wrote _ in #"),
        ("What does a tiger eat?", "Tiger", "what does a _ eat"),
        ("Do tigers eat a tiger?", "tiger", "do tigers eat a _"),
        ("What does a tiger eat?", "lion", "what does a tiger eat"),
        ("Mount Everest is in which country?", "", "_ is in which country"),
        ("Which is the oldest?", "", "which is the oldest"),
        ("Who is Anna's father?", "", "who is _ 's father"),
        ("How many of the 12,000 died in 1.5 years?", "", "how many of the # died in # years"),
        ("When did World War 2 end?", "", "when did _ end"),
        ("ЧТО такое Байкал?", "", "что такое _"),
        ("?", "", ""),
        ("", "", ""),
    ],
)
def test_masked_form(text: str, via: str, found: str) -> None:
    assert masked_form(text, via).removesuffix(" paris") == found


@pytest.mark.parametrize("via", ["(", "a+b", "\\", "[x]", "*"])
def test_odd_entities_are_plain_text(via: str) -> None:
    assert entity_span(f"What is {via} of?", via) in {None, (8, 8 + len(via))}


def test_matched_takes_the_same_form_first_and_each_question_once() -> None:
    pool = [
        tried("Who ruled Mali?"),
        tried("Who ruled Chad?"),
        tried("Who ruled Oman?", "declined"),
        tried("Who ruled Togo in Africa?", "declined"),
        tried("What eats grass?"),
        tried("Why do birds of the sea sing at night?", "declined"),
        tried("Who ruled Peru?", "undecided"),
    ]
    found = [(one.question.text, other.question.text) for one, other in matched(pool)]
    assert found == [
        ("Who ruled Chad?", "Who ruled Oman?"),
        ("Who ruled Mali?", "Who ruled Togo in Africa?"),
    ] or found == [
        ("Who ruled Mali?", "Who ruled Oman?"),
        ("Who ruled Chad?", "Who ruled Togo in Africa?"),
    ]
    assert len(matched(pool, bound=0.9)) == 1
    assert matched([]) == matched(pool[:2]) == matched(pool[2:4]) == []


def test_matched_does_not_depend_on_the_order() -> None:
    pool = [
        tried(f"Who ruled {name}?", ("belief", "declined")[i % 3 > 0])
        for i, name in enumerate(NAMES)
    ]
    pairs = matched(pool)
    assert len(pairs) == 17 and set(pairs) == set(matched(random.Random(1).sample(pool, len(pool))))


def test_the_last_outcome_of_a_question_counts() -> None:
    pool = [
        tried("Who ruled Mali?"),
        tried("Who ruled Chad?", "declined"),
        tried("who ruled Mali", "undecided"),
    ]
    assert matched(pool) == []


def test_attempts_and_other_sides_are_fine() -> None:
    pool = [Attempt(Question("Who ruled Mali?", "t"), decision="belief", confidence=0.9)]
    pool.append(Attempt(Question("Who ruled Chad?", "t"), decision="undecided", confidence=0.1))
    assert matched(pool, unknown=lambda one: (one.confidence or 0) < 0.3) == [(pool[0], pool[1])]


def told(known: str, unknown: str, count: int, start: int = 0) -> list[tuple[Outcome, Outcome]]:
    names = NAMES[start : start + count]
    return [
        (tried(f"{known} {name}?"), tried(f"{unknown} of {name}?", "declined")) for name in names
    ]


@pytest.mark.extra("stats")
def test_style_tells_where_it_does_and_not_where_it_does_not() -> None:
    assert style_auroc(*question_texts(told("Who ruled", "When was the fall", 20))) > 0.95
    same = [
        (tried(f"Who ruled {a}?"), tried(f"Who ruled {b}?", "declined"))
        for a, b in zip(NAMES[::2], NAMES[1::2], strict=True)
    ]
    assert style_auroc(*question_texts(same)) == pytest.approx(0.5, abs=0.1)


@pytest.mark.extra("stats")
def test_the_two_of_a_pair_stay_together() -> None:
    """Pairs that share a rare word: apart, it would be learnt and be wrong of the other."""
    pairs = [
        (tried(f"Who ruled {n} {n}x {n}y of A{n}?"), tried(f"Who ruled {n} {n}x {n}y of B{n}?"))
        for n in NAMES
    ]
    together, apart = (
        style_auroc(*question_texts(pairs), paired=paired) for paired in (True, False)
    )
    assert together == pytest.approx(0.5, abs=0.1) and apart < 0.3


@pytest.mark.extra("stats")
def test_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="4 known and 9 unknown"):
        style_auroc(["Who?"] * 4, ["When?"] * 9)


def test_balanced_drops_what_gives_it_away_and_nothing_else() -> None:
    even = [(tried(f"Who ruled {n}?"), tried(f"Who ruled {n}x?", "declined")) for n in NAMES[:30]]
    uneven = told("Which king saw", "In what year did the fall", 12, 30)
    kept = balanced(even + uneven)
    assert set(even) <= set(kept) and len(kept) <= len(even) + 2
    assert balanced(even) == even and balanced([]) == [] and balanced(even[:1]) == even[:1]
    assert len(balanced(uneven, least=0.5)) == 6, "never fewer than the share that is asked for"


def test_balanced_takes_another_partner_before_it_drops_a_pair() -> None:
    pairs = [
        (tried(f"Who ruled old {n}?"), tried(f"Who ruled new {n}?", "declined")) for n in NAMES[:12]
    ]
    spare = [tried(f"Who ruled old {n}?", "declined") for n in NAMES[12:24]] + [
        tried("Why is it so?", "declined")
    ]
    kept = balanced(pairs, spare)
    assert {one for one, _ in kept} == {one for one, _ in pairs} and spare[-1] not in {
        other for _, other in kept
    }
    assert sum("new" in other.question.text for _, other in kept) <= 1
    assert len({other.question.text for _, other in kept}) == 12
    assert len(balanced(pairs, [one for _, one in pairs])) == 6, "a partner is no spare"


def test_balanced_takes_away_what_leans_the_other_way_too() -> None:
    one, other = "Who saw the fall of {}?", "Why did the king of {} leave?"
    pool = [(tried(one.format(n)), tried(other.format(n), "declined")) for n in NAMES[:10]]
    pool += [(tried(other.format(n)), tried(one.format(n), "declined")) for n in NAMES[10:16]]
    kept = balanced(pool, bound=0.1)
    assert sum(pair[0].question.text.startswith("Who") for pair in kept) == 6 and len(kept) == 12


@pytest.mark.extra("stats")
def test_halves_and_transfer() -> None:
    pairs = told("Who ruled", "When was the fall", 21)
    one, other = halves(pairs)
    assert len(one) == 11 and len(other) == 10 and {*one, *other} == {*pairs}
    assert transfer_auroc(question_texts(one), question_texts(other)) == 1.0


@pytest.mark.extra("stats")
def test_a_gap_is_large_where_words_tell_and_small_where_they_hardly_lean() -> None:
    told_apart, other = halves(told("Who ruled", "When was the fall", 40))
    assert transfer_gap(question_texts(told_apart), question_texts(other)) > 0.8
    mixed = (
        [f"Who ruled {name}?" for name in NAMES[:22]],
        [f"When was the fall of {name}?" for name in NAMES[:18]],
    )
    leaning = (
        [*mixed[0], *mixed[1]],
        [*mixed[0][:18], *mixed[1], *(f"{text} Now?" for text in mixed[1][:4])],
    )
    assert transfer_auroc(leaning, question_texts(other)) > 0.9
    assert 0 < transfer_gap(leaning, question_texts(other)) < 0.4
