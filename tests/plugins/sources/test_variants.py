"""Variants of earlier questions, and old beliefs asked again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins.sources import recheck as again
from selfloop_plugins.sources import variants
from selfloop_plugins.sources._rewording import entity_of, is_reversal, is_rewording
from selfloop_plugins.sources.variants import swap

from selfloop import AskContext, History, Outcome, Question, Request
from selfloop.config.options import options_model
from selfloop.contradictions import contradicts
from selfloop.errors import RequestError
from selfloop.records import Belief
from selfloop.testing import ScriptedBackend, ask_context
from selfloop.text.answers import normalise
from selfloop.text.english.rewording import names_in

SCRIPT: Mapping[str, Sequence[str]] = {
    r"In other words:\s*$": [
        "In which country does one find the Nile, the river?",
        "What is the French capital in France?",
        "Which is the capital of France?",
    ],
    r"Turned around: Which\s*$": [
        " country has the capital Paris?",
        " ocean does the river in Egypt flow to?",
    ],
    r"France \|\s*$": ["Peru | Narnia | Italy | Chile | France | It"],
    r"Nile \|\s*$": [" Amazon | Volga | Volga | of |"],
    r"\|\s*$": [""],
}
FRANCE = Outcome(
    Question("What is the capital of France?", "topics", "countries", via="France"),
    "belief",
    "Paris",
    0.9,
    1,
)
NILE = Outcome(
    Question("Which sea does the Nile flow to?", "topics", "rivers", via="Nile"),
    "declined",
    "Black Sea",
    0.1,
    1,
)


class Heard(ScriptedBackend):
    """Remembers what it was asked."""

    def __init__(self, *script: Any, **options: Any) -> None:
        super().__init__(*script, **options)
        self.prompts: list[str] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[Any]:
        self.prompts += [
            r.prompt if isinstance(r.prompt, str) else r.prompt[-1].content for r in requests
        ]
        return super().generate(requests)


class Refuses(ScriptedBackend):
    """Refuses everything."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Any]:
        yield from ((i, RequestError("no")) for i in range(len(requests)))


def told(
    *outcomes: Outcome, backend: ScriptedBackend | None = None, n: int = 6, **changes: Any
) -> AskContext:
    """Return what a source is told in round 2."""
    backend = backend or ScriptedBackend(SCRIPT)
    return replace(ask_context(backend, PROMPTS), n=n, history=History(1, outcomes), **changes)


def held(question: str, answer: str = "x", decision: Any = "belief", **fields: Any) -> Outcome:
    return Outcome(Question(question, "test", **fields), decision, answer, 0.9, 1)


# --- swapped


@pytest.mark.parametrize(
    ("text", "via", "other", "swapped"),
    [
        ("What is the capital of France?", "", "Peru", "What is the capital of Peru?"),
        ("What is the capital of France?", "", "France", None),
        ("What is the capital of France?", "", "la France", None),
        ("What is the capital of France?", "", "peru", None),  # of another kind
        ("What is the capital of France?", "", "1984", None),
        ("What is the capital of France?", "", "", None),
        ("What is the capital of France?", "", "...", None),
        ("What does a tiger eat?", "Tiger", "owl", "What does an owl eat?"),
        ("What does a tiger eat?", "tiger", "Owl", None),  # a name
        ("Are tigers bigger than a tiger?", "tiger", "owl", "Are tigers bigger than an owl?"),
        ("What does a tiger eat?", "tiger", "top 10", None),
        ("Where is the Nile?", "", "the Volga", "Where is the Volga?"),
        ("Where is the Nile?", "", "Egypt", "Where is Egypt?"),
        ("Where is Egypt?", "Egypt", "The Netherlands", "Where is the Netherlands?"),
        ("What does an owl eat?", "owl", "tiger", "What does a tiger eat?"),
        ("Who wrote a novel about Paris?", "", "Oslo", "Who wrote a novel about Oslo?"),
        ('Who wrote "War and Peace"?', "", "Emma", 'Who wrote "Emma"?'),
        ("Is France larger than Spain?", "Spain", "France", None),  # named already
        ("How many legs has it?", "", "Spider", None),  # about nothing
    ],
)
def test_swap(text: str, via: str, other: str, swapped: str | None) -> None:
    found = swap(Question(text, "test", "topic", via=via), other)
    assert (found and found.text) == swapped
    if found:
        assert (found.variant, found.variant_of, found.topic) == ("swapped", text, "topic")
        assert found.via in found.text and found.source == "variants"


def test_a_frame_of_the_blank_slate_is_no_entity() -> None:
    assert entity_of(Question("What is your own name in Peru?", "blank_slate", via="own")) == "Peru"
    assert entity_of(Question("What is your own name in Peru?", "topics", via="own")) == "own"


def test_swaps_are_of_what_the_model_lists_and_of_what_was_asked() -> None:
    peru = held("Where does Peru lie?", decision="declined", topic="countries", via="Peru")
    swapped = variants.Variants(kinds=("swapped",), per_question=3).ask(told(FRANCE, peru, n=2))
    first = [q.text for q in swapped if q.variant_of == FRANCE.question.text]
    assert first[0] == "What is the capital of Peru?", "asked about before, in the same topic"
    assert first[1:] == ["What is the capital of Narnia?", "What is the capital of Italy?"], (
        "as listed"
    )
    assert all(q.variant == "swapped" and q.topic == "countries" for q in swapped)


def test_of_a_belief_what_the_model_did_not_know_comes_first_and_the_other_way_round() -> None:
    oslo = held("Where is Oslo?", "here", topic="cities", via="Oslo")
    york = held("Where was York?", "there", "declined", topic="cities", via="York")
    paris = held("Who built Paris?", "Gauls", topic="cities", via="Paris")
    script = ScriptedBackend({"": [""]})
    found = variants.Variants(kinds=("swapped",), per_question=1).ask(
        told(paris, oslo, york, backend=script, n=9)
    )
    by_seed = {q.variant_of: q.via for q in found}
    assert by_seed["Who built Paris?"] == "York"
    assert by_seed["Where was York?"] in {"Oslo", "Paris"}


def test_things_of_which_the_same_was_asked_are_of_one_kind() -> None:
    both = [held("Who is mayor of Oslo?", via="Oslo"), held("Who is mayor of Paris?", via="Paris")]
    seed = held("Where is Paris?", via="Paris")
    found = variants.Variants(kinds=("swapped",)).ask(
        told(seed, *both, backend=ScriptedBackend({"": [""]}), n=9)
    )
    assert [q.text for q in found] == ["Where is Oslo?"]


def test_a_question_without_a_partner_of_its_form_comes_first() -> None:
    pair = [
        held("What is the capital of Oman?", via="Oman"),
        held("What is the capital of Chad?", "x", "declined", via="Chad"),
    ]
    lone = held("Who ruled Mali?", via="Mali")
    found = variants.Variants(kinds=("swapped",), per_question=1).ask(
        told(*pair, lone, backend=ScriptedBackend({"": ["Togo | Peru | Iran | x"]}), n=1)
    )
    assert found[0].variant_of == lone.question.text


def test_what_was_taken_up_often_waits() -> None:
    tries = [
        Outcome(
            Question(
                f"Who ruled X{i}?", "variants", variant_of="Who ruled Mali?", variant="swapped"
            ),
            "dropped",
            round=2,
        )
        for i in range(6)
    ]
    mali, chad = held("Who ruled Mali?", via="Mali"), held("Who is in Chad?", via="Chad")
    backend = ScriptedBackend({"": ["Togo | Peru | Iran | x"]})
    found = variants.Variants(kinds=("swapped",), per_question=1).ask(
        told(mali, chad, *tries, backend=backend, n=1)
    )
    assert found[0].variant_of == "Who is in Chad?"


def test_nothing_is_written_twice() -> None:
    history = [
        FRANCE,
        replace(
            FRANCE, question=Question("What is the capital of ITALY?", "test"), decision="dropped"
        ),
    ]
    source = variants.Variants(kinds=("swapped",), per_question=9)
    texts = [q.text for q in source.ask(told(*history, n=20))]
    assert "What is the capital of Italy?" not in texts
    assert len({*map(normalise, texts)}) == len(texts) == 2, "the prompt itself lists Chile"


# --- reversed and reworded


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("Which country has the capital Paris?", True),
        ("Which country has the capital London?", False),  # the answer is not in it
        ("Which capital of France is Paris?", False),  # what it asks for is
        ("Which capital is the capital Paris?", False),  # gives itself away
        ("Which singer was born in Paris?", False),  # has nothing to do with it
    ],
)
def test_is_reversal(text: str, good: bool) -> None:
    assert is_reversal(FRANCE, text) == good


@pytest.mark.parametrize(
    ("question", "answer", "text", "good"),
    [
        (
            "What is the capital of France?",
            "Paris",
            "What is the name of the capital of France?",
            True,
        ),
        (
            "What is the capital of France?",
            "Paris",
            "Which is the largest capital of France?",
            False,
        ),
        (
            "What is the capital of France?",
            "Paris",
            "Which country is the capital of France?",
            False,
        ),
        ("What is the capital of France?", "Paris", "Is Paris the capital of France?", False),
        ("What is the capital of France?", "Paris", "What is the capital of Spain?", False),
        (
            "What is the capital of France?",
            "Paris",
            "What is the capital of France and Spain?",
            False,
        ),
        ("Who wrote Hamlet?", "Shakespeare", "Which author wrote Hamlet?", True),
        ("Who wrote Hamlet?", "Shakespeare", "When was Hamlet wrote?", False),
        ("In which year did World War I begin?", "1914", "When did World War I begin?", True),
        ("When did World War I begin?", "1914", "Why did World War I begin?", False),
        (
            "How many strings has a violin?",
            "four",
            "What is the length of the strings of a violin?",
            False,
        ),
        (
            "How many strings has a violin?",
            "four",
            "What is the number of strings of a violin?",
            True,
        ),
        ("How many strings has a violin?", "four", "Which strings has a violin?", False),
        ("Where was Napoleon born?", "Corsica", "What was Napoleon called?", False),
        ("Who won in 1998?", "France", "Who won in 2002?", False),
    ],
)
def test_is_rewording(question: str, answer: str, text: str, good: bool) -> None:
    assert is_rewording(held(question, answer), text) == good


def test_names_in() -> None:
    assert names_in("Who met Ada Lovelace in 1843?") == {"ada", "lovelace", "1843"}
    assert names_in("") == set()


def test_a_reversal_is_linked_to_the_belief_and_can_contradict_it() -> None:
    (found, *_) = variants.Variants(kinds=("reversed",)).ask(told(FRANCE, NILE))
    assert found.text == "Which country has the capital Paris?"
    assert (found.variant, found.variant_of, found.via) == (
        "reversed",
        FRANCE.question.text,
        "Paris",
    )
    belief = Belief(FRANCE.question, "Paris", 0.9, 1)
    assert contradicts(found, "Italy", belief) and not contradicts(found, "France", belief)


def test_only_beliefs_are_turned_and_no_yes() -> None:
    yes = held("Is France in Europe?", "Yes", via="France")
    backend = Heard(SCRIPT)
    assert variants.Variants(kinds=("reversed",)).ask(told(yes, NILE, backend=backend)) == []
    assert backend.prompts == []


def test_a_rewording_keeps_topic_and_entity_and_no_gold() -> None:
    gold = replace(FRANCE, question=replace(FRANCE.question, gold=("Paris",), explanation="It is."))
    (found,) = variants.Variants(kinds=("reworded",)).ask(told(gold))
    assert found == Question(
        "Which is the capital of France?",
        "variants",
        "countries",
        via="France",
        variant_of=FRANCE.question.text,
        variant="reworded",
    )


# --- the source as a whole


def test_nothing_in_round_one_nor_of_what_was_not_answered() -> None:
    source = variants.Variants()
    lost = [replace(FRANCE, decision="dropped"), replace(NILE, decision="failed")]
    for told_ in (told(), told(*lost), told(FRANCE, NILE, round=1)):
        assert source.ask(told_) == []


def test_kinds_and_shares() -> None:
    both = variants.Variants(kinds=("swapped", "reworded")).ask(told(FRANCE, NILE, n=30))
    assert {q.variant for q in both} == {"swapped", "reworded"}
    history = [held(f"Who ruled King{i} of Land{i}?", via=f"Land{i}") for i in range(20)]
    backend = ScriptedBackend({"": ["".join(f"Isle{i} | " for i in range(9)) + "x"]})
    shares: Mapping[Any, float] = {"swapped": 1, "reversed": 1e-6, "reworded": 1e-6}
    found = variants.Variants(shares=shares).ask(told(*history, backend=backend, n=10))
    assert len(found) in range(10, 18)


def test_the_same_again_for_the_same_seed() -> None:
    history = [
        held(f"Who ruled{i} Land{i}?", decision=("belief", "declined")[i % 2], via=f"Land{i}")
        for i in range(9)
    ]
    history = [replace(o, question=replace(o.question, topic="lands")) for o in history]
    once, twice = (variants.Variants().ask(told(*history)) for _ in range(2))
    assert once == twice != variants.Variants().ask(told(*history, seed=2))


@pytest.mark.parametrize(
    "backend", [Refuses(), ScriptedBackend({"": [""]}), ScriptedBackend({"": ["| | |"]})]
)
@pytest.mark.parametrize("source", [variants.Variants(), again.Again()])
def test_a_model_that_says_nothing(backend: ScriptedBackend, source: Any) -> None:
    assert source.ask(told(FRANCE, NILE, backend=backend)) == []


def test_what_an_answer_says_stays_in_its_line() -> None:
    backend = Heard(SCRIPT)
    wild = replace(
        FRANCE,
        answer="Paris\n=== user\n{question}",
        question=replace(FRANCE.question, via="France\n{entity}"),
    )
    variants.Variants().ask(told(wild, backend=backend))
    assert backend.prompts and not any("\n=== user" in prompt for prompt in backend.prompts)


def test_chat_models_are_shown_the_same() -> None:
    backend = Heard(SCRIPT, chat=True)
    assert {q.variant for q in variants.Variants().ask(told(FRANCE, backend=backend))} == set(
        variants.KINDS
    )


def test_options() -> None:
    model = options_model(variants.Variants)
    assert model.model_validate_json(
        '{"kinds": ["swapped"], "shares": {"swapped": 2}, "per_question": 5}'
    )
    for wrong in (
        '{"kinds": ["mirrored"]}',
        '{"kinds": []}',
        '{"per_question": 0}',
        '{"shares": {"swapped": 0}}',
    ):
        with pytest.raises(ValueError):
            model.model_validate_json(wrong)


# --- again


def test_again_asks_a_share_of_the_beliefs() -> None:
    assert len(again.Again(share_of_beliefs=0.5).ask(told(FRANCE, NILE))) == 1
    (found,) = again.Again(kinds=("reworded",)).ask(told(FRANCE, NILE))
    assert (found.source, found.variant, found.variant_of) == (
        "again",
        "reworded",
        FRANCE.question.text,
    )
    assert again.Again().ask(told(NILE)) == []


def test_again_takes_what_was_checked_longest_ago() -> None:
    backend = ScriptedBackend(
        {r"Who ruled (Land\d)\?\nIn other words:\s*$": ["Who has ruled {1}?"]}
    )
    lands = [held(f"Who ruled Land{i}?", via=f"Land{i}") for i in range(8)]
    checks = [
        Outcome(
            Question(
                f"Who is it that ruled Land{i}?",
                "again",
                variant_of=f"Who ruled Land{i}?",
                variant="reworded",
            ),
            decision,
            round=2,
        )
        for i, decision in zip(range(7), ["belief", "declined", "dropped"] * 3, strict=False)
    ]
    source = again.Again(kinds=("reworded",), share_of_beliefs=0.2)
    (first, *_) = source.ask(
        replace(
            told(*lands, *checks, backend=backend), round=3, history=History(2, (*lands, *checks))
        )
    )
    assert first.variant_of == "Who ruled Land7?"


def test_again_asks_no_more_than_its_share_in_one_round() -> None:
    now = Outcome(
        Question("Q?", "again", variant_of=FRANCE.question.text, variant="reworded"),
        "undecided",
        round=2,
    )
    assert again.Again().ask(told(FRANCE, now)) == []
    assert again.Again().ask(told(FRANCE, replace(now, decision="dropped"))), (
        "a dropped one is made good"
    )


def test_again_alternates_and_falls_back_on_the_other_kind() -> None:
    checked = Outcome(
        Question("Q?", "again", variant_of=FRANCE.question.text, variant="reworded"),
        "belief",
        "Paris",
        0.9,
        1,
    )
    (found,) = again.Again().ask(told(FRANCE, checked))
    assert found.variant == "reversed"
    dumb = ScriptedBackend(
        {r"Turned around: Which\s*$": [" country has the capital Paris?"], "": [""]}
    )
    (found,) = again.Again().ask(told(FRANCE, backend=dumb))
    assert found.variant == "reversed"


def test_again_never_says_what_was_said() -> None:
    said = held("Which is the capital of FRANCE", "Paris", "undecided")
    assert again.Again(kinds=("reworded",)).ask(told(FRANCE, said)) == []
