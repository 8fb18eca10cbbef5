"""The Self-Prompting pipeline: what each step makes of what the model writes, and of nonsense."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins.sources import _recogniser, self_prompting
from selfloop_plugins.sources.self_prompting import SelfPrompting, shares, singular

from selfloop import AskContext, Completion, History, Outcome, Question, Request
from selfloop.errors import MissingExtraError, RecipeError, RequestError
from selfloop.testing import ScriptedBackend
from selfloop.testing import ask_context as told
from selfloop.text.english.entities import named_spans, possible_answers
from selfloop.text.english.sentences import whole_sentences

LIST = r"List some ([^\n]+), separated by '\|':$"
PASSAGE = r"This is a passage from Wikipedia about the [^\n]+, ([^\n]+):$"
NAMED = r"write 'None' only\.$"
QUESTION = r'"(\w+) was built[^\n]*"\n"(%s)" is the answer to the question:$'
CHECK = r"Question: %s[^\n]*\nShort Answer[^\n]*:$"
EXPLAIN = r"Sentence: ([^\n]+)\nThe above sentence [^\n]*:$"
WORLD: Mapping[str, Sequence[str]] = {
    LIST: ["Nile | Amazon | Danube | Sicily | Rhine"],
    PASSAGE: ["{1} was built in 1902 by Ada Byron. It is near Oslo Town. {1} has many vis"],
    NAMED: ["Oslo Town | Zanzibar | Byron"],
    QUESTION % "1902": ["When was {1} built? And why?"],
    QUESTION % "Ada Byron": ["Who built {1}?"],
    QUESTION % "Oslo Town": ["Near which town is {1}?"],
    QUESTION % "[^\n]+": ["Is it {2}?"],
    CHECK % "When": ["1902."],
    CHECK % "Who": ["Byron"],
    CHECK % "Near": ["the Oslo town"],
    EXPLAIN: ["The thing is near Oslo Town.", "Something else."],
}


class Heard(ScriptedBackend):
    """Remembers the calls of `generate`."""

    def __init__(self, script: Mapping[str, Sequence[str]] = WORLD, **how: Any) -> None:
        super().__init__(script, **how)
        self.calls: list[list[Request]] = []

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        self.calls.append(list(requests))
        return super().generate(requests)


def ask_context(
    backend: ScriptedBackend | None = None,
    *,
    n: int = 6,
    history: History | None = None,
    seed: int = 1,
) -> AskContext:
    made = replace(told(backend or Heard(), prompts=PROMPTS), n=n, seed=seed)
    return replace(made, history=history or History())


def source(**options: Any) -> SelfPrompting:
    return SelfPrompting(**{"topics": ("rivers",), "yields": 2.0, **options})


def after(questions: Sequence[Question]) -> History:
    return History(1, tuple(Outcome(question, "belief", round=1) for question in questions))


# --- the whole way


def test_pipeline_keeps_what_the_passage_answers() -> None:
    backend = Heard()
    questions, counts = source().pipeline(ask_context(backend, n=4))
    assert {(q.text, q.answer, q.via) for q in questions} == {
        (f"When was {name} built?", "1902", name) for name in ("Nile", "Amazon")
    } | {(f"Near which town is {name}?", "Oslo Town", name) for name in ("Nile", "Amazon")}
    assert all(q.source == "self_prompting" and q.topic == "rivers" for q in questions)
    assert counts == {
        "entities": 2,
        "passages": 2,
        "answers": 8,  # the name, 1902, Ada Byron, Oslo Town
        "questions": 8,
        "fit": 6,  # "Is it Nile?" says its answer, and "it"
        "checked": 4,  # "Byron" is not "Ada Byron"
        "explained": 4,
    }
    assert len(backend.calls) == 6, "one call a step"


def test_explanation_is_rewritten_only_where_it_still_holds_the_answer() -> None:
    told_by = {q.text: q.explanation for q in source().ask(ask_context(n=40))}
    years = {text for question, text in told_by.items() if question.startswith("When")}
    towns = {text for question, text in told_by.items() if question.startswith("Near")}
    assert all(text.endswith("was built in 1902 by Ada Byron.") for text in years), (
        "no rewriting of it holds 1902"
    )
    assert towns <= {"The thing is near Oslo Town.", "It is near Oslo Town."}
    assert "The thing is near Oslo Town." in towns


def test_mismatch_may_take_the_passages_answer() -> None:
    found = {q.text: q.answer for q in source(mismatch="replace").ask(ask_context(n=2))}
    assert found["Who built Nile?"] == "Byron"
    long = {**WORLD, CHECK % "Who": ["Ada Byron of the house that stands near Oslo Town"]}
    assert "Who built Nile?" not in {
        q.text for q in source(mismatch="replace").ask(ask_context(Heard(long), n=2))
    }
    elsewhere = {**WORLD, CHECK % "Who": ["Zeus"]}
    assert "Who built Nile?" not in {
        q.text for q in source(mismatch="replace").ask(ask_context(Heard(elsewhere), n=2))
    }


def test_of_the_same_question_the_answer_that_holds_stays() -> None:
    script = {**WORLD, QUESTION % "[^\n]+": ["Who built {1}?"], CHECK % "Who": ["1902"]}
    backend = Heard(
        {k: v for k, v in script.items() if k not in {QUESTION % "Ada Byron", QUESTION % "1902"}}
    )
    questions, counts = source().pipeline(ask_context(backend, n=2))
    assert {(q.text, q.answer) for q in questions} == {
        ("Who built Nile?", "1902"),
        ("Near which town is Nile?", "Oslo Town"),
    }
    assert (counts["questions"], counts["fit"], counts["checked"]) == (4, 3, 2)
    assert len(backend.calls[4]) == 2, "the same is checked once"


def test_the_model_may_answer_itself() -> None:
    assert {q.answer for q in source(judge="own").ask(ask_context())} == {""}


def test_published_settings() -> None:
    backend = Heard()
    source().ask(ask_context(backend))
    listing, passage, named, question, check, explain = (call[0].sampling for call in backend.calls)
    assert (listing.temperature, passage.temperature, passage.max_tokens) == (1, 0.4, 256)
    assert (named.temperature, question.temperature, check.temperature, explain.temperature) == (
        0,
        0.2,
        0,
        0,
    )
    last = backend.calls[3][0].prompt
    assert isinstance(last, str)
    assert last.endswith('" is the answer to the question:')


def test_chat_models_get_turns() -> None:
    backend = Heard(chat=True)
    assert source().ask(ask_context(backend))
    passage = backend.calls[1][0]
    assert passage.prompt[-1].role == "user"  # type: ignore[union-attr]
    assert all(request.open_turn for i in (0, 2, 3, 4, 5) for request in backend.calls[i]), (
        "it goes on with its own"
    )


def test_the_same_is_asked_again_after_a_kill() -> None:
    first, again = Heard(), Heard()
    assert source().ask(ask_context(first, n=9)) == source().ask(ask_context(again, n=9))
    assert first.calls == again.calls
    other = Heard()
    source().ask(ask_context(other, n=9, seed=2))
    assert other.calls != first.calls


def test_no_entity_or_question_comes_twice_in_a_run() -> None:
    first = source().ask(ask_context(n=4))
    second = source().ask(ask_context(n=4, history=after(first)))
    assert {q.via for q in first} == {"Nile", "Amazon"}
    assert {q.via for q in second} == {"Danube", "Rhine"}  # Sicily is in the prompt
    assert source().ask(ask_context(n=4, history=after([*first, *second]))) == []
    dropped = History(1, (Outcome(Question("when was nile built", "other"), "dropped", round=1),))
    assert "When was Nile built?" not in {
        q.text for q in source().ask(ask_context(n=2, history=dropped))
    }


# --- topics and quotas


def test_published_topics() -> None:
    quotas = self_prompting._quotas(self_prompting.TOPICS, "topics")
    assert (len(quotas), sum(quotas.values())) == (29, 1300)
    assert shares(quotas, {}, 1300) == quotas


@pytest.mark.parametrize(
    ("count", "uses", "given"),
    [
        (10, {}, {"a": 5, "b": 3, "c": 2}),
        (1, {}, {"a": 1}),
        (0, {}, {}),
        (4, {}, {"a": 2, "b": 1, "c": 1}),
        (5, {"a": 5}, {"b": 3, "c": 2}),
        (2, {"a": 1, "b": 1}, {"a": 1, "c": 1}),
        (2, {"gone": 9}, {"a": 1, "b": 1}),
    ],
)
def test_shares(count: int, uses: dict[str, int], given: dict[str, int]) -> None:
    assert shares({"a": 5, "b": 3, "c": 2}, uses, count) == given


def test_a_topic_without_entities_leaves_its_share_to_others() -> None:
    script = {r"List some rivers, separated by '\|':$": [""], **WORLD}
    backend = Heard(script)
    _, counts = source(topics=("rivers: 90", "lakes: 10")).pipeline(ask_context(backend, n=6))
    assert counts["entities"] == 3


@pytest.mark.parametrize(
    "reply",
    ["", "Nile", "Nile | Nile | nile |", "| | |", "None of the above and so on and on", "Sicily"],
)
def test_poor_lists_end(reply: str) -> None:
    backend = Heard({LIST: [reply], **{k: v for k, v in WORLD.items() if k != LIST}})
    topics = ("rivers", "lakes", "seas")
    _, counts = source(topics=topics).pipeline(ask_context(backend, n=50))
    assert counts["entities"] <= 1
    assert len(backend.calls) < 15


@pytest.mark.parametrize(
    "reply", ["", "?", "no question", "\x00\x1b[2J", "|" * 99, '"' * 99, "{0}{passage}"]
)
def test_nonsense_is_no_question(reply: str) -> None:
    assert source().ask(ask_context(Heard({LIST: WORLD[LIST], "": [reply]}))) == []
    keep = {LIST, PASSAGE, NAMED}
    assert (
        source().ask(
            ask_context(Heard({**{k: v for k, v in WORLD.items() if k in keep}, "": [reply]}))
        )
        == []
    )


def test_one_and_many() -> None:
    topics = ("rivers", "cities", "species", "classical music", "buses", "glass", "日本の川")
    assert [singular(topic) for topic in topics] == [
        "river", "city", "species", "classical music", "buse", "glass", "日本の川",
    ]  # fmt: skip
    assert {singular(t) for t in ("movies", "actors and actresses")} == {
        "movie",
        "actor or actress",
    }


# --- files and options


def check(**options: Any) -> None:
    self_prompting.selfloop_question_sources()[0].check(**options)  # type: ignore[misc]


def test_topics_file(tmp_path: Path) -> None:
    path = tmp_path / "topics.txt"
    path.write_text("\ufeff川\n\nأنهار\t3\nfilms: horror: 2\n川\t9\n", encoding="utf-8")
    check(topics_file=path)
    assert SelfPrompting(topics_file=path)._quotas == {"川": 1, "أنهار": 3, "films: horror": 2}


def test_topics_in_other_scripts() -> None:
    script = {
        LIST: ["信濃川｜利根川"],
        PASSAGE: ["{1}は日本の川です。長さは367キロです。未完"],
        NAMED: ["日本 | 367キロ"],
        r'"367キロ" is the answer': ["この川の長さは何ですか？"],
        r"Short Answer[^\n]*:$": ["367キロ"],
        "": [""],
    }
    (question,) = source(topics=("川",)).ask(ask_context(Heard(script), n=2))
    assert (question.answer, question.explanation) == ("367キロ", "長さは367キロです。")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has no topics"),
        (b" \n\t\n", "has no topics"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"rivers: 0", "quota"),
        (None, "read"),
    ],
)
def test_bad_topics_file(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "topics.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=says):
        check(topics_file=path)


def test_no_topics() -> None:
    for topics in ((), ("",), (" ",)):
        with pytest.raises(RecipeError, match="has no topics"):
            check(topics=topics)


def test_spacy_is_asked_for_before_a_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    there: set[str] = set()
    monkeypatch.setattr(
        _recogniser.importlib.util, "find_spec", lambda name: name if name in there else None
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'selfloop\[spacy\]'"):
        check(ner="spacy")
    there.add("spacy")
    with pytest.raises(RecipeError, match="spacy download en_core_web_sm"):
        check(ner="spacy")
    there.add("en_core_web_sm")
    found = SimpleNamespace(ents=[SimpleNamespace(text="Ada Byron")])
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=lambda name: lambda text: found))
    _recogniser._spacy.cache_clear()
    backend = Heard({**WORLD, NAMED: ["None"]})
    _, counts = source(ner="spacy").pipeline(ask_context(backend, n=2))
    _recogniser._spacy.cache_clear()
    assert counts["answers"] == 2  # what spaCy found, and what the passage is about


# --- refusals


def test_what_the_backend_refuses_is_left_out() -> None:
    class Refuses(Heard):
        def generate(
            self, requests: Sequence[Request]
        ) -> Iterator[tuple[int, Completion | RequestError]]:
            for index, result in super().generate(requests):
                refused = "Nile was" in str(requests[index].prompt) and "Sentence:" not in str(
                    requests[index].prompt
                )
                yield index, RequestError("too long") if refused else result

    assert {q.via for q in source().ask(ask_context(Refuses(), n=4))} == {"Amazon"}


def test_a_refused_explanation_is_the_sentence_itself() -> None:
    class Refuses(Heard):
        def generate(
            self, requests: Sequence[Request]
        ) -> Iterator[tuple[int, Completion | RequestError]]:
            for index, result in super().generate(requests):
                late = any(
                    word in str(requests[index].prompt)
                    for word in ("The above sentence", "Extract the named")
                )
                yield index, RequestError("too long") if late else result

    found = source().ask(ask_context(Refuses(), n=2))
    assert {q.explanation for q in found} == {
        "Nile was built in 1902 by Ada Byron.",
        "It is near Oslo Town.",
    }


def test_where_all_is_refused_it_says_why() -> None:
    with pytest.raises(RequestError, match="context of 20"):
        source().ask(ask_context(Heard(context=20)))


# --- entities of a text


def test_spans() -> None:
    text = (
        'Marie Curie (7 November 1867 – May 1934) wrote "The Radiation". Born in Warsaw, she met '
        "J. K. Rowling at "
        "St. Helena. One of the Greek gods was Zeus. On May 5, 2001 Apollo 11 flew 8,849 metres "
        "with 3 people."
    )
    assert named_spans(text) == [
        "Marie Curie", "7 November 1867", "May 1934", "The Radiation", "Warsaw", "J. K. Rowling",
        "St. Helena", "Greek",
        "Zeus", "May 5, 2001", "Apollo 11", "8,849 metres", "3 people",
    ]  # fmt: skip
    assert named_spans("Otto ran. So did Otto.") == ["Otto"]
    assert named_spans("") == named_spans("Rivers run.") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two! Half of", ["One.", "Two!"]),
        ("Mr. Smith met J. K. Rowling. One. One.", ["Mr. Smith met J. K. Rowling.", "One."]),
        ('He said "yes." Then', ['He said "yes."']),
        ("東京です。1868年。未完", ["東京です。", "1868年。"]),
        ("هل هو؟ نعم", ["هل هو؟"]),
        ("half", []),
        ("", []),
    ],
)
def test_sentences(text: str, found: list[str]) -> None:
    assert whole_sentences(text) == found


def test_answers_are_whole_short_and_in_the_passage() -> None:
    passage = "The Treaty of Versailles was signed in Versailles by the United States in 1919."
    found = [
        "Versailles",
        "Treaty of Versailles",
        "1919",
        " 1919. ",
        "Mars",
        "",
        "...",
        "was signed in Versailles by the United",
    ]
    assert possible_answers(passage, found, 6) == ["Treaty of Versailles", "1919"]


def test_repeating_passages_are_cut() -> None:
    text = [
        "It is the 12th largest in the world.",
        "It is the 13th largest in the world.",
        "Oslo is old.",
        "Shown here.",
    ]
    assert self_prompting._telling(text, "before\nshown here.") == [
        "It is the 12th largest in the world.",
        "Oslo is old.",
    ]
