"""The question sources: what they ask the model, and what they make of what it writes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from selfloop_plugins import blank_slate, question_file, topics
from selfloop_plugins.writing import draw, first_question

from selfloop import Asking, Message, Past, Question, Request, Sampling
from selfloop.errors import RecipeError, RequestError
from selfloop.prompts import Prompts
from selfloop.testing import ScriptedBackend, past_of


class Heard(ScriptedBackend):
    """Remembers what it was asked."""

    requests: list[Request]

    def generate(self, requests: Sequence[Request]) -> Iterator[Any]:
        self.requests = [*getattr(self, "requests", []), *requests]
        return super().generate(requests)


def asking(backend: ScriptedBackend | None = None, *, n: int = 6, seed: int = 1, past: Past | None = None) -> Asking:
    backend = backend or ScriptedBackend()
    prompts = Prompts([Path(topics.__file__).parent / "prompts"])

    def prompt(name: str, **values: str) -> Any:
        return prompts.render(name, chat=backend.describe().chat, **values)

    return Asking(n, 1, 0, seed, backend, past or Past(), prompt)


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
    assert topics.entities(text) == found


# --- topics


def test_topics_ask_about_each_entity_once() -> None:
    asked = topics.Topics().ask(asking(n=8))
    assert len(asked) == 11  # 8 * 1.4
    assert all(isinstance(q, Question) and q.source == "topics" and q.topic in topics.TOPICS for q in asked)
    assert all(q.text.endswith("?") for q in asked)


def test_topics_are_taken_in_turn() -> None:
    script = {r"Examples:\s*$": ["Nile | Paris | Mars | Tea | x"], "": ["What of it?"]}
    asked = topics.Topics(topics=("one", "two"), oversample=1.0).ask(asking(ScriptedBackend(script), n=6))
    assert len({q.topic for q in asked[:2]}) == 2
    assert sorted(q.topic for q in asked) == ["one"] * 3 + ["two"] * 3


def test_topics_without_entities_ask_nothing() -> None:
    assert topics.Topics().ask(asking(ScriptedBackend({"": ["no list at all"]}))) == []


@pytest.mark.parametrize("source", [topics.Topics(), blank_slate.BlankSlate()])
@pytest.mark.parametrize("chat", [True, False])
def test_what_is_asked_depends_on_the_seed_alone(source: Any, chat: bool) -> None:
    first = source.ask(asking(ScriptedBackend(chat=chat)))
    assert first == source.ask(asking(ScriptedBackend(chat=chat)))
    assert first != source.ask(asking(ScriptedBackend(chat=chat), seed=2))


# --- blank slate


def test_blank_slate_gives_a_base_model_a_frame() -> None:
    backend = Heard()
    asked = blank_slate.BlankSlate(frames=("Quiz\n\nQ:",), oversample=2.0).ask(asking(backend, n=5))
    assert [r.prompt for r in backend.requests] == ["Quiz\n\nQ:"] * 10
    assert len({r.seed for r in backend.requests}) == 10
    assert not any(r.open_turn for r in backend.requests)
    assert all(r.sampling.stop == ("\n",) and r.sampling.temperature == 1.0 for r in backend.requests)
    assert {q.source for q in asked} == {"blank_slate"}


def test_blank_slate_leaves_a_chat_models_turn_open() -> None:
    backend = Heard({"": [" is the capital of Egypt? It is"]}, chat=True)
    asked = blank_slate.BlankSlate(openings=("What",)).ask(asking(backend, n=2))
    assert [q.text for q in asked] == ["What is the capital of Egypt?"] * 3
    assert all(r.open_turn and r.prompt == (Message("user", "What"),) for r in backend.requests)


def test_blank_slate_leaves_out_what_is_empty() -> None:
    assert blank_slate.BlankSlate().ask(asking(ScriptedBackend({"": ["", " ", "- "]}))) == []


# --- draw


def test_draw_keeps_order_and_gives_n_of_each() -> None:
    script = {"a": ["1"], "b": ["2"]}
    assert draw(asking(ScriptedBackend(script)), ["a", "b", "a"], Sampling(), n=2) == [["1"] * 2, ["2"] * 2, ["1"] * 2]


def test_draw_passes_a_refusal_on() -> None:
    with pytest.raises(RequestError, match="over the context of 3"):
        draw(asking(ScriptedBackend(context=3)), ["a b c d"], Sampling())


# --- file


def file(path: Path, text: str) -> question_file.QuestionFile:
    path.write_text(text, encoding="utf-8")
    return question_file.QuestionFile(path=path)


def test_text_file_one_question_a_line(tmp_path: Path) -> None:
    source = file(tmp_path / "q.txt", "Who was it?\n\n  Où est-il ?  \r\n{}\n")
    assert [q.text for q in source.ask(asking())] == ["Who was it?", "Où est-il ?", "{}"]


def test_jsonl_file_with_topics_and_answers(tmp_path: Path) -> None:
    source = file(
        tmp_path / "q.jsonl", '{"question": " Q? ", "topic": "t", "answers": ["a", "b"]}\n\n{"question": "R?"}'
    )
    assert source.ask(asking()) == [Question("Q?", "file", "t", ("a", "b")), Question("R?", "file")]


def test_file_gives_each_question_once(tmp_path: Path) -> None:
    source = file(tmp_path / "q.txt", "\n".join(f"Question {i}?" for i in range(5)))
    first = source.ask(asking(n=2))
    assert [q.text for q in first] == ["Question 0?", "Question 1?"]
    past = past_of(["Question 0?", "Question 2?"], ["Question 1?"])
    assert [q.text for q in source.ask(asking(n=9, past=past))] == ["Question 3?", "Question 4?"]
    assert source.ask(asking(past=past_of([f"Question {i}?" for i in range(5)]))) == []


@pytest.mark.parametrize(
    "line", ["{oops", "[1]", '"Q?"', "{}", '{"q": "Q?"}', '{"question": "Q?", "answers": 3}', "null", "1"]
)
def test_a_bad_line_is_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r'q\.jsonl, line 3: each line is \{"question"'):
        file(tmp_path / "q.jsonl", f'{{"question": "Q?"}}\n\n{line}\n')


@pytest.mark.parametrize("line", ['{"question": "Q?", "answers": "Cairo"}', '{"question": null}', '{"question": ""}'])
def test_a_line_that_means_something_else_is_named_too(line: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="line 1"):
        file(tmp_path / "q.jsonl", line)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read the question file"):
        question_file.QuestionFile(path=tmp_path)
    (tmp_path / "q.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="cannot read the question file"):
        question_file.QuestionFile(path=tmp_path / "q.txt")
