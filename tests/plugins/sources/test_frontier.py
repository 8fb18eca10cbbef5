"""Frontier: which earlier questions are followed, how often, and what the model is shown."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins.sources import frontier

from selfloop import AskContext, History, Outcome, Question
from selfloop.errors import RequestError
from selfloop.records import Request
from selfloop.testing import ScriptedBackend
from selfloop.testing import ask_context as told


class Heard(ScriptedBackend):
    """Remembers what it was asked."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> Any:
        self.requests += requests
        return super().generate(requests)


def became(
    text: str, decision: Any, sure: float | None, topic: str = "", round: int = 1
) -> Outcome:
    return Outcome(
        Question(text, "topics", topic), decision, "x", sure, round, None, f"confidence {sure}"
    )


def ask_context(
    *outcomes: Outcome, backend: ScriptedBackend | None = None, n: int = 40, round: int = 2
) -> AskContext:
    known = replace(told(backend, PROMPTS), n=n, round=round)
    return replace(known, history=History(round - 1, outcomes))


SOME = (
    *(became(f"Half known {i}?", "undecided", 0.5) for i in range(6)),
    *(became(f"Well known {i}?", "belief", 1.0) for i in range(6)),
    *(became(f"Not known {i}?", "declined", 0.0) for i in range(6)),
    *(became(f"Fragment {i}", "dropped", None) for i in range(6)),
)


def via(asked: Sequence[Question]) -> Counter[str]:
    return Counter(question.via for question in asked)


def test_nothing_in_round_1() -> None:
    backend = Heard()
    assert frontier.Frontier().ask(ask_context(backend=backend, round=1)) == []
    this_round = [replace(outcome, round=1) for outcome in SOME]
    assert frontier.Frontier().ask(ask_context(*this_round, backend=backend, round=1)) == []
    assert not backend.requests


def test_nothing_where_nothing_was_asked() -> None:
    assert (
        frontier.Frontier().ask(
            ask_context(became("Fragment", "dropped", None), became("Broke?", "failed", None))
        )
        == []
    )


def test_kinds_by_their_shares() -> None:
    backend = Heard()
    frontier.Frontier(oversample=1.0).ask(ask_context(*SOME, backend=backend, n=800))
    followed = Counter(
        str(r.prompt).rpartition("Question: ")[2].split(" known")[0] for r in backend.requests
    )
    assert followed["Half"] / 200 == pytest.approx(0.6, abs=0.1)
    assert followed["Well"] / 200 == pytest.approx(0.2, abs=0.1)
    assert followed["Not"] / 200 == pytest.approx(0.2, abs=0.1)
    assert all(r.n == 4 for r in backend.requests)


def test_an_answer_that_echoes_its_question_is_not_half_known() -> None:
    echo = replace(became("What sport is baseball?", "undecided", 0.5), answer="Baseball")
    pools = frontier.seed_pools(ask_context(echo, *SOME))
    assert {kind: len(pool) for kind, pool in pools.items()} == {
        "middling": 6,
        "easy": 6,
        "impossible": 6,
    }


def test_via_says_which_kind() -> None:
    backend = ScriptedBackend(
        {"Half": ["Is it half?"], "Well": ["Is it well?"], "Not": ["Is it not?"]}
    )
    asked = frontier.Frontier().ask(ask_context(*SOME, backend=backend))
    assert {(q.text, q.via) for q in asked} == {
        ("Is it half?", "middling"),
        ("Is it well?", "easy"),
        ("Is it not?", "impossible"),
    }
    assert all(q.source == "frontier" for q in asked)


def test_a_share_of_none_asks_nothing_of_that_kind() -> None:
    script = {"Half": ["Is it half?"], "Well": ["Is it well?"], "Not": ["Is it not?"]}
    none = frontier.Frontier(easy=0.0, impossible=0.0).ask(
        ask_context(*SOME, backend=ScriptedBackend(script))
    )
    assert set(via(none)) == {"middling"}
    assert set(
        via(frontier.Frontier().ask(ask_context(*SOME[6:12], backend=ScriptedBackend(script))))
    ) == {"easy"}


def test_followed_in_proportion_to_four_p_one_minus_p_and_twice_where_it_flipped() -> None:
    pools = frontier.seed_pools(
        ask_context(
            became("A?", "undecided", 0.5),
            became("B?", "belief", 0.9),
            became("C?", "declined", 0.1, "rivers"),
            became("D?", "belief", 0.9, "wars", 1),
            became("D?", "undecided", 0.5, "wars", 2),
            became("E?", "undecided", 0.5, "wars"),
            became("F?", "declined", None),
            became("G?", "undecided", 0.5, round=3),
            round=3,
        )
    )
    weights = {o.question.text: round(weight, 3) for o, weight in pools["middling"]}
    assert weights == {"A?": 1.0, "B?": 0.36, "C?": 0.36, "D?": 2.0, "E?": 2.0}
    assert [o.question.text for o, _ in pools["easy"]] == ["B?"]
    assert [(o.question.text, weight) for o, weight in pools["impossible"]] == [
        ("C?", 0.9),
        ("F?", 1.0),
    ]


@pytest.mark.parametrize(
    ("one", "then", "flips"),
    [
        (("belief", 0.9), ("undecided", 0.5), True),
        (("declined", 0.1), ("belief", 0.9), True),
        (("belief", 0.9), ("belief", 0.7), True),
        (("belief", 0.7), ("belief", 0.9), False),
        (("undecided", 0.5), ("undecided", 0.4), False),
        (("belief", 0.9), ("dropped", None), False),
        (("belief", 0.9), ("failed", None), False),
    ],
)
def test_what_flips(one: Any, then: Any, flips: bool) -> None:
    found = frontier.flipped_questions(
        [became("A?", *one), became("B?", "belief", 0.8), became("A?", *then)]
    )
    assert found == ({"A?"} if flips else set())


def test_what_is_asked_again_in_this_round_did_not_flip_yet() -> None:
    pending = Outcome(Question("A?", "again"), "undecided", round=2)
    assert frontier.flipped_questions([became("A?", "belief", 0.9), pending]) == set()


@pytest.mark.parametrize("chat", [True, False])
def test_what_the_model_is_shown(chat: bool) -> None:
    rivers = [became(f"River {i}?", "undecided", 0.5, "rivers") for i in range(7)]
    wars = [became(f"War\n{i}?", "undecided", 0.9, "wars") for i in range(7)]
    backend = Heard({"": ["Which one?"]}, chat=chat)
    asked = frontier.Frontier(shown=3).ask(ask_context(*rivers, *wars, backend=backend))
    assert [(q.text, q.topic in ("rivers", "wars")) for q in asked] == [("Which one?", True)]
    for request in backend.requests:
        assert request.open_turn is chat
        text = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
        shown = [line for line in text.splitlines() if line.startswith("Question: ")]
        assert len(set(shown)) == 3 and len({line.split()[1] for line in shown}) == 1
        topic = "rivers" if "River" in shown[0] else "wars"
        assert text.endswith(f"Topic: {topic}\nQuestion:")


def test_a_question_without_a_topic() -> None:
    backend = Heard()
    frontier.Frontier().ask(ask_context(became("A?", "undecided", 0.5), backend=backend, n=1))
    assert str(backend.requests[0].prompt).endswith(
        "Topic: general knowledge\nQuestion: A?\n\nTopic: general knowledge\nQuestion:"
    )


def test_what_was_asked_or_dropped_is_not_given_again() -> None:
    backend = ScriptedBackend({"": ["Half known 1? and", "Fragment 2", "", "?"]})
    assert {q.text for q in frontier.Frontier().ask(ask_context(*SOME, backend=backend))} == {"?"}


def test_it_depends_on_the_seed_alone() -> None:
    first = frontier.Frontier().ask(ask_context(*SOME))
    assert first and first == frontier.Frontier().ask(ask_context(*SOME))
    assert first != frontier.Frontier().ask(replace(ask_context(*SOME), seed=9))


def test_a_refused_prompt_is_left_out() -> None:
    long = became("word " * 60 + "?", "undecided", 0.5)
    backend = ScriptedBackend({"": ["Which one?"]}, context=100)
    asked = frontier.Frontier(shown=1).ask(
        ask_context(long, became("A?", "undecided", 0.5), backend=backend)
    )
    assert [q.text for q in asked] == ["Which one?"]
    with pytest.raises(RequestError, match="over the context"):
        frontier.Frontier().ask(ask_context(long, backend=backend))
