"""The question sources: what they ask the model, and what they make of what it writes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins.sources import blank_slate, topics
from selfloop_plugins.sources import file as question_file
from selfloop_plugins.sources._writing import first_question, generate_texts

from selfloop import AskContext, History, Message, Outcome, Question, Request, Sampling
from selfloop.config.prompts import Prompts
from selfloop.errors import RecipeError, RequestError
from selfloop.testing import ScriptedBackend, history_of
from selfloop.text.english.mentions import mentions


class Heard(ScriptedBackend):
    """Remembers what it was asked."""

    requests: list[Request]

    def generate(self, requests: Sequence[Request]) -> Iterator[Any]:
        self.requests = [*getattr(self, "requests", []), *requests]
        return super().generate(requests)


def ask_context(
    backend: ScriptedBackend | None = None,
    *,
    n: int = 6,
    seed: int = 1,
    history: History | None = None,
) -> AskContext:
    backend = backend or ScriptedBackend()
    prompts = Prompts([PROMPTS])

    def prompt(name: str, **values: str) -> Any:
        return prompts.render(name, chat=backend.describe().chat, **values)

    return AskContext(n, 1, 0, seed, backend, history or History(), prompt)


# --- reading what was written


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (" Who was it? And when? ", "Who was it?"),
        ("- What is it?", "What is it?"),
        ('12. "Where is it?"', "Where is it?"),
        ("not a question", "not a question"),
        ("Who\nwas it?", "Who\nwas it?"),
        ("???", "?"),
        ("", ""),
        ("  \n", ""),
    ],
)
def test_first_question(text: str, question: str) -> None:
    assert first_question(text) == question


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Nile | Paris | Ma", ["Nile", "Paris"]),
        ("Nile, Paris; Mars • Te", ["Nile", "Paris", "Mars"]),
        ("1. Nile | 2) 'Paris' | - Mars.|x", ["Nile", "Paris", "Mars"]),
        ("Nile", []),
        ("", []),
        ("|||", []),
        ("one two three four five | one two three four five six | x", ["one two three four five"]),
        ("… | (odd) | Åland | 北京 | x", ["Åland", "北京"]),
    ],
)
def test_entities(text: str, found: list[str]) -> None:
    assert topics.listed_names(text) == found


# --- topics

LIST = r"Examples:[^\n]*$"


def world(listed: str, about: str = "Who found {1}?") -> dict[str, list[str]]:
    return {LIST: [listed], r"Topic: ([^\n(]+) \([^\n]*\)\nQuestion:$": [about]}


def after(source: Any, asked: Sequence[Question], history: History | None = None) -> History:
    history = history or History()
    done = (
        Outcome(q, "undecided", "x", 0.5, history.rounds + 1, None, "confidence 0.50")
        for q in asked
    )
    return History(history.rounds + 1, (*history.outcomes, *done))


def test_topics_ask_about_each_entity_and_name_it() -> None:
    backend = ScriptedBackend(world("Nile | Peru | Mars | x"))
    asked = topics.Topics(topics=("one",), per_entity=3).ask(ask_context(backend, n=9))
    assert [(q.text, q.via, q.topic, q.source) for q in asked] == [
        (f"Who found {name}?", name, "one", "topics") for name in ("Nile", "Peru", "Mars")
    ]


def test_a_question_about_something_else_is_not_given() -> None:
    backend = ScriptedBackend(world("Nile | Peru | x", "What colour is a ruby?"))
    assert topics.Topics(topics=("one",)).ask(ask_context(backend)) == []


def test_several_questions_an_entity() -> None:
    backend = Heard(world("Nile | Peru | x"))
    topics.Topics(topics=("one",), per_entity=3, more=False).ask(ask_context(backend))
    about = [
        r.prompt.rpartition("Topic: ")[2]
        for r in backend.requests
        if str(r.prompt).endswith("Question:")
    ]  # type: ignore[union-attr]
    assert sorted(about) == ["Nile (one)\nQuestion:"] * 3 + ["Peru (one)\nQuestion:"] * 3


def test_what_is_shown_differs_between_prompts_and_seeds() -> None:
    def shown(seed: int) -> set[str]:
        backend = Heard(world("Nile | Peru | Tea | Oslo | Iron | Bach | x"))
        topics.Topics(topics=("one",)).ask(ask_context(backend, seed=seed))
        return {
            str(r.prompt).rpartition("Topic: ")[0]
            for r in backend.requests
            if str(r.prompt).endswith("Question:")
        }

    assert 2 <= len(shown(1)) <= 4
    assert shown(1) != shown(2)


def test_topics_are_taken_in_turn_the_least_asked_first() -> None:
    script = {r"Category: one\nExamples:$": ["Nile | Peru | x"], **world("Mars | Tea | x")}
    source = topics.Topics(topics=("one", "two"), oversample=1.0, per_entity=1)
    asked = source.ask(ask_context(ScriptedBackend(script), n=4))
    assert sorted(q.topic for q in asked) == ["one"] * 2 + ["two"] * 2
    assert len({q.topic for q in asked[:2]}) == 2
    history = History(
        1, (Outcome(Question("Who found Ra?", "topics", "one", via="Ra"), "undecided", round=1),)
    )
    assert {
        q.topic
        for q in topics.Topics(topics=("one", "two")).ask(
            ask_context(Heard(script), n=1, history=history)
        )
    } == {"two"}


def test_an_entity_is_not_used_again_and_begins_the_next_list() -> None:
    source = topics.Topics(topics=("one",), more=False)
    first = source.ask(ask_context(ScriptedBackend(world("Nile | x"))))
    backend = Heard(world("nile | Oslo | x"))
    asked = source.ask(ask_context(backend, history=after(source, first)))
    assert {q.via for q in asked} == {"Oslo"}
    assert str(backend.requests[0].prompt).endswith("Category: one\nExamples: Nile |")
    assert (
        source.ask(
            ask_context(
                ScriptedBackend(world("nile | Nile | NILE | x")), history=after(source, first)
            )
        )
        == []
    )


def test_what_most_lists_have_comes_first_and_no_name_is_within_another() -> None:
    lists = ["Made up | Oslo | Nile | x", "Oslo | Nile River | nile | x", "Nile Delta | Oslo | x"]
    backend = ScriptedBackend({LIST: lists, "Question:$": ["Is it Made up, Oslo, Nile?"]})
    asked = topics.Topics(topics=("one",), more=False)._new_entities(ask_context(backend, n=9), 9)
    assert asked[0] == ("one", "Oslo")
    assert not {"Nile River", "Nile Delta"} & {
        name for _, name in asked if "Nile" in {n for _, n in asked}
    }


def test_a_name_within_one_that_was_asked_about_is_not_new() -> None:
    history = History(
        1,
        (
            Outcome(
                Question("Where is the Nile?", "topics", "one", via="Nile"), "undecided", round=1
            ),
        ),
    )
    source = topics.Topics(topics=("one",), more=False)
    asked = source.ask(
        ask_context(ScriptedBackend(world("Nile River | Oslo | x")), history=history)
    )
    assert {q.via for q in asked} == {"Oslo"}


def test_dry_topics_are_followed_by_the_models_own() -> None:
    script = {
        r"quiz[^\n]*\|$": ["Dances | one | dances | cut"],
        r"Category: dances\nExamples:$": ["Waltz | x"],
        **world("Nile | x"),
    }
    source = topics.Topics(topics=("one",))
    first = source.ask(ask_context(ScriptedBackend(script)))
    assert [(q.topic, q.via) for q in first] == [("one", "Nile"), ("dances", "Waltz")]
    script[r"Category: dances\nExamples: Waltz \|$"] = ["Tango | x"]
    again = source.ask(
        ask_context(ScriptedBackend(dict(reversed(script.items()))), history=after(source, first))
    )
    assert [(q.topic, q.via) for q in again] == [("dances", "Tango")]
    assert {
        q.topic
        for q in topics.Topics(topics=("one",), more=False).ask(
            ask_context(ScriptedBackend(script))
        )
    } == {"one"}


@pytest.mark.parametrize(
    "listed", ["", "no list at all", "|||", "one | " * 20, "x" * 10_000, "Plato | Plato |"]
)
def test_a_model_that_lists_nothing_new_ends_the_source(listed: str) -> None:
    """Also with one entity alone, an example or a known one: bounded calls, and no question."""
    backend = Heard({r"Question:$": ["Who is one?"], "": [listed]})
    source, history = (
        topics.Topics(),
        History(
            1, (Outcome(Question("Who is one?", "topics", "a", via="one"), "dropped", round=1),)
        ),
    )
    assert source.ask(ask_context(backend, history=history)) == []
    assert len(backend.requests) < 200


def test_a_model_that_always_lists_the_same_is_asked_about_it_once() -> None:
    backend = Heard(world("Nile | " * 12))
    asked = topics.Topics().ask(ask_context(backend, n=50))
    assert [q.via for q in asked] == ["Nile"]
    assert topics.Topics().ask(ask_context(backend, n=50, history=after(None, asked))) == []


def test_topics_of_a_file_in_another_script(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\ufeffреки\n\n  河流 \r\nреки\n{}\n", encoding="utf-8")
    backend = ScriptedBackend(
        {LIST: ["长江、黄河、x"], "Question:$": ["长江有多长？那么", "长江在哪里?"]}
    )
    asked = topics.Topics(topics_file=tmp_path / "t.txt").ask(ask_context(backend, n=9))
    assert {q.topic for q in asked} <= {"реки", "河流", "{}"} and {q.via for q in asked} == {"长江"}
    assert {q.text for q in asked} <= {"长江有多长？", "长江在哪里?"}


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff\n"])
def test_a_topics_file_without_topics_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"the topics file .*t\.txt has no topics"):
        topics.check(topics_file=tmp_path / "t.txt")


def test_topics_that_cannot_be_had(tmp_path: Path) -> None:
    for empty in ((), ("", " ")):
        with pytest.raises(RecipeError, match="topics has no topics"):
            topics.check(topics=empty)
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe")
    for path in (tmp_path, tmp_path / "t.txt", tmp_path / "none"):
        with pytest.raises(RecipeError, match="cannot read the topics file"):
            topics.check(topics_file=path)


@pytest.mark.parametrize(
    ("question", "entity", "topic", "named"),
    [
        ("How long is the Nile?", "Nile", "rivers", True),
        ("How long is the nile river?", "the Nile", "rivers", True),
        ("Where was Jefferson born?", "Thomas Jefferson", "presidents", True),
        ("How many teeth does a shovel have?", "shovels", "tools", True),
        ("What colour is a ruby?", "Nile", "rivers", False),
        ("Which tree is the tallest?", "oak tree", "trees", False),
        ("How old is an oak?", "oak tree", "trees", True),
        ("Which tree is the tallest?", "tree", "trees", True),
        ("What is a carpet?", "car", "vehicles", True),
        ("What is a scar?", "car", "vehicles", False),
        ("长江有多长？", "长江", "河流", True),
        ("What is it?", "…", "", False),
        ("", "Nile", "", False),
    ],
)
def test_naming(question: str, entity: str, topic: str, named: bool) -> None:
    assert mentions(question, entity, topic) is named


@pytest.mark.parametrize("source", [topics.Topics(), blank_slate.BlankSlate()])
@pytest.mark.parametrize("chat", [True, False])
def test_what_is_asked_depends_on_the_seed_alone(source: Any, chat: bool) -> None:
    first = source.ask(ask_context(ScriptedBackend(chat=chat)))
    assert first == source.ask(ask_context(ScriptedBackend(chat=chat)))
    assert first != source.ask(ask_context(ScriptedBackend(chat=chat), seed=2))


# --- blank slate


def test_blank_slate_gives_a_base_model_a_frame() -> None:
    backend = Heard()
    asked = blank_slate.BlankSlate(frames=("Quiz\n\nQ:",), oversample=2.0).ask(
        ask_context(backend, n=5)
    )
    assert [r.prompt for r in backend.requests] == ["Quiz\n\nQ:"] * 10
    assert len({r.seed for r in backend.requests}) == 10
    assert not any(r.open_turn for r in backend.requests)
    assert all(
        r.sampling.stop == ("\n",) and r.sampling.temperature == 0.8 for r in backend.requests
    )
    assert {(q.source, q.via) for q in asked} == {("blank_slate", "Quiz Q:")}


@pytest.mark.parametrize(
    ("frame", "question"),
    [
        ("Quiz\n\n1. Who wrote", "Who wrote it?"),
        ("Quiz\n\n- Who wrote", "Who wrote it?"),
        ("Quiz\n\nQuestion: Who wrote", "Who wrote it?"),
        ("Quiz\n\nQ:", "it?"),
        ("1. Who wrote", "Who wrote it?"),
        ("Quiz night", "it?"),
    ],
)
def test_what_begins_in_the_frame_is_of_the_question(frame: str, question: str) -> None:
    asked = blank_slate.BlankSlate(frames=(frame,)).ask(
        ask_context(ScriptedBackend({"": [" it? 2. Who"]}), n=1)
    )
    assert {q.text for q in asked} == {question}


def test_blank_slate_leaves_a_chat_models_turn_open() -> None:
    backend = Heard({"": [" is the capital of Egypt? It is"]}, chat=True)
    asked = blank_slate.BlankSlate(openings=("What",), oversample=2.0).ask(
        ask_context(backend, n=2)
    )
    assert [(q.text, q.via) for q in asked] == [("What is the capital of Egypt?", "What")] * 4
    assert all(r.open_turn and r.prompt == (Message("user", "What"),) for r in backend.requests)


@pytest.mark.parametrize("chat", [True, False])
def test_what_does_not_go_on_from_the_opening_is_a_question_of_its_own(chat: bool) -> None:
    source = blank_slate.BlankSlate(frames=("Quiz\n\n1. Who wrote",), openings=("Who wrote",))
    backend = ScriptedBackend({"": ["What is it?", " Emma?", "rs?"]}, chat=chat)
    assert {q.text for q in source.ask(ask_context(backend, n=30))} == {
        "What is it?",
        "Who wrote Emma?",
        "Who wroters?",
    }


def test_blank_slate_leaves_out_what_is_empty() -> None:
    assert blank_slate.BlankSlate().ask(ask_context(ScriptedBackend({"": ["", " ", "- "]}))) == []


def yielding(via: str, asked: int, dropped: int) -> list[Outcome]:
    done = ["undecided"] * asked + ["dropped"] * dropped
    return [
        Outcome(Question(f"{via} {i}?", "blank_slate", via=via), d, round=1)
        for i, d in enumerate(done)
    ]  # type: ignore[arg-type]


def test_frames_are_drawn_by_what_they_yielded_and_none_starves() -> None:
    history = History(
        1, (*yielding("good", 16, 0), *yielding("bad", 0, 996), *yielding("elsewhere", 9, 9))
    )
    shares = blank_slate.frame_weights(["good", "bad", "new"], ask_context(history=history))
    assert shares[0] == pytest.approx(18 / 20) and shares[2] == pytest.approx(1 / 2)
    assert shares[1] == pytest.approx(0.05 * (0.9 + 0.5 + 0.002))
    many = blank_slate.frame_weights([str(i) for i in range(100)], ask_context(history=history))
    assert many == [0.5] * 100


def test_what_a_frame_yielded_changes_what_is_drawn() -> None:
    def drawn(history: History) -> float:
        backend = Heard()
        blank_slate.BlankSlate(frames=("a", "b"), own=False).ask(
            ask_context(backend, n=100, history=history)
        )
        return sum(r.prompt == "a" for r in backend.requests) / 200

    assert drawn(History()) == pytest.approx(0.5, abs=0.1)
    assert drawn(History(1, tuple(yielding("a", 0, 200)))) < 0.15
    assert drawn(History(1, (*yielding("a", 200, 0), *yielding("b", 0, 30)))) > 0.8


@pytest.mark.parametrize("chat", [True, False])
def test_the_runs_own_good_questions_are_a_frame_from_round_2(chat: bool) -> None:
    done = [("belief", 4), ("undecided", 2), ("declined", 3), ("dropped", 3)]
    history = History(
        1,
        tuple(
            Outcome(Question(f"{d} {i}?", "file"), d, round=1) for d, n in done for i in range(n)
        ),
    )  # type: ignore[arg-type]
    this_round = Outcome(Question("now?", "file"), "undecided", round=2)
    backend = Heard({"": [" Who was it?"]}, chat=chat)
    told = replace(
        ask_context(
            backend, n=60, history=replace(history, outcomes=(*history.outcomes, this_round))
        ),
        round=2,
    )
    asked = blank_slate.BlankSlate().ask(told)
    owned = [r for r in backend.requests if "belief" in str(r.prompt)]
    assert len(owned) == -(-sum(q.via == "own" for q in asked) // 8) > 0
    for request in owned:
        text = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
        lines = [line for line in text.splitlines() if line.startswith("- ")]
        assert len(set(lines)) == 4 and all(
            "belief" in line or "undecided" in line for line in lines
        )
        assert text.endswith("\n-") and request.open_turn is chat
    assert "own" not in {q.via for q in blank_slate.BlankSlate(own=False).ask(told)}
    few = replace(told, history=History(1, history.outcomes[:3]))
    assert "own" not in {q.via for q in blank_slate.BlankSlate().ask(few)}


# --- generating texts


def test_generate_texts_keeps_order_and_gives_n_of_each() -> None:
    script = {"a": ["1"], "b": ["2"]}
    assert generate_texts(
        ask_context(ScriptedBackend(script)), ["a", "b", "a"], Sampling(), n=2
    ) == [
        ["1"] * 2,
        ["2"] * 2,
        ["1"] * 2,
    ]


def test_generate_texts_leaves_out_what_is_refused() -> None:
    backend = ScriptedBackend({"": ["x"]}, context=3)
    assert generate_texts(ask_context(backend), ["a", "a b c d", "a"], Sampling(max_tokens=1)) == [
        ["x"],
        [],
        ["x"],
    ]


def test_generate_texts_tells_if_all_is_refused() -> None:
    with pytest.raises(RequestError, match="over the context of 3"):
        generate_texts(ask_context(ScriptedBackend(context=3)), ["a b c d"], Sampling())


# --- file


def file(path: Path, text: str) -> question_file.QuestionFile:
    path.write_text(text, encoding="utf-8")
    return question_file.QuestionFile(path=path)


def test_text_file_one_question_a_line(tmp_path: Path) -> None:
    source = file(tmp_path / "q.txt", "Who was it?\n\n  Où est-il ?  \r\n{}\n")
    assert [q.text for q in source.ask(ask_context())] == ["Who was it?", "Où est-il ?", "{}"]


def test_jsonl_file_with_topics_and_answers(tmp_path: Path) -> None:
    source = file(
        tmp_path / "q.jsonl",
        '{"question": " Q? ", "topic": "t", "answers": ["a", "b"]}\n\n{"question": "R?"}',
    )
    assert source.ask(ask_context()) == [
        Question("Q?", "file", "t", ("a", "b")),
        Question("R?", "file"),
    ]


def test_file_gives_each_question_once(tmp_path: Path) -> None:
    source = file(tmp_path / "q.txt", "\n".join(f"Question {i}?" for i in range(5)))
    first = source.ask(ask_context(n=2))
    assert [q.text for q in first] == ["Question 0?", "Question 1?"]
    history = history_of(["Question 0?", "Question 2?"], ["Question 1?"])
    assert [q.text for q in source.ask(ask_context(n=9, history=history))] == [
        "Question 3?",
        "Question 4?",
    ]
    assert source.ask(ask_context(history=history_of([f"Question {i}?" for i in range(5)]))) == []


@pytest.mark.parametrize(
    "line", ["{oops", "[1]", '"Q?"', '{"question": 1, "question": 2}', "null", "1"]
)
def test_a_bad_line_is_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r'q\.jsonl, line 3: each line is \{"question"'):
        file(tmp_path / "q.jsonl", f'{{"question": "Q?"}}\n\n{line}\n')


@pytest.mark.parametrize(
    "line", ['{"question": ["Q?"]}\n{}', '{"question": null}', '{"question": ""}']
)
def test_a_line_that_means_something_else_is_named_too(line: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="line 1"):
        file(tmp_path / "q.jsonl", line)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="it is a folder, and none that `datasets` saved"):
        question_file.QuestionFile(path=tmp_path)
    (tmp_path / "q.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="there is no row in it"):
        question_file.QuestionFile(path=tmp_path / "q.txt")
