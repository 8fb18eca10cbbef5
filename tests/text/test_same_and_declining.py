"""One rule for the same answer and one for declining: faults, properties and bounds."""

import importlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from unicodedata import normalize

import pytest
from conftest import Selfloop, cpu_limit
from hypothesis import example, given, settings
from hypothesis import strategies as st

from selfloop.errors import RecipeError
from selfloop.evaluation.gold import correct, judged, match_named, token_f1
from selfloop.records import Question
from selfloop.text.answers import also_declining, declines, normalise, squad_normalise
from selfloop.text.answers.bounded import checked, found

ROOT = Path(__file__).parents[2]
Write = Callable[[Mapping[str, str]], Path]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-5", "5"), ("1.5", "15"), ("C++", "C"), ("C#", "C"), ("A+", "A"), ("A-", "A"), ("10:30",
        "1030"),
        ("3/4", "34"),
        ("50%", "50"), ("$5", "5"), ("5 km", "5 m"), ("Vitamin A", "Vitamin"), ("A and B", "B"),
        ("44 BC", "44"),
        ("か", "が"), ("दिल्ली", "दल्ला"), ("5, 100", "5100"), ("Python 3.10", "Python 3.1"),
        (".NET", "NET"),
        ("+", "×"),
    ],
)  # fmt: skip
def test_different(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)
    assert not correct(one, [other])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (normalize("NFD", "São Paulo"), "São Paulo"), ("1914–1918", "1914-1918"),
        ("東京。", "東京"),
        ("“Hamlet”", "Hamlet"),
        ("Don’t", "Don't"), ("1,000", "1000"), ("1\u202f000", "1000"), ("1.0", "1"), ("½", "0.5"),
        ("two", "2"), ("٣", "3"),
        ("May 5, 2020", "5 May 2020"), ("$5", "5 dollars"), ("5km", "5 kilometres"), ("AT&T",
        "AT and T"),
        ("A", "a."),
        ("The The", "the the"), ("Ｔｏｋｙｏ", "Tokyo"), ("¿París?", "paris"), ("**Paris**",
        "Paris"), ("D.C.", "DC"),
    ],
)  # fmt: skip
def test_the_same(one: str, other: str) -> None:
    assert normalise(one) == normalise(other) != ""
    assert correct(one, [other])


PIECES = [
    "the", "a", "an", "A", "-5", "1.5", "1,000", "10:30", "3/4", "½", "C++", "c#", "A+", "A-",
    ".NET", "&", "AT&T", "50%", "$5", "5", "km", "m²", "東京", "。", "「", "»", "é", "İ", "ß", "ı",
    "１２", "٣", "May", "5,", "2020", "4th", "July", "BC", "AD", "II", "iv", "x", "v", "two",
    "hundred", "second", "half", "and", "one", "'", "n", "’", "—", "–", "pm", ".", ",", ";", "(",
    ")", "*", "_", "**", "!", "?", "…", "+", "-", "=", "<", "~", "#", "no.", "²", "^2", "5'10\"",
    "α", "e-mail", "B-52", "per", "cent", "million", "answer", "is", "flat", "sharp", "negative",
    "é", "दिल्ली", "พ่อ",
]  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=30),
    st.lists(st.sampled_from([*PIECES, " ", ""]), max_size=7).map(" ".join),
    st.lists(st.sampled_from([*PIECES, " "]), max_size=6).map("".join),
)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
@example("2½ km")
@example("e\u0301\u0327")
@example("The A-Team & the 5'10\" 'n' roll")
def test_normalising_is_idempotent_and_blind_to_unicode_forms(text: str) -> None:
    normal = normalise(text)
    assert normalise(normal) == normal
    assert {normalise(normalize(form, text)) for form in ("NFC", "NFD")} == {normal}


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS)
def test_every_match_is_symmetric_where_it_should_be(one: str, other: str) -> None:
    for name in ("exact", "squad", "f1"):
        agrees = match_named(name).agrees
        assert agrees(one, other) == agrees(other, one)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_declining_never_raises_and_empty_declines(text: str) -> None:
    assert declines(text) or normalise(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    ["1,", "*a ", "'", "one ", "a.", "- 5 ", "(", "i do ", "_", "the ", "no ", "1.5 x ", "one x "],
)
def test_a_long_text_costs_no_more_than_its_length(piece: str) -> None:
    text = piece * 20_000
    begun = time.process_time()
    normalise(text)
    declines(text)
    assert time.process_time() - begun < cpu_limit(20)


def test_the_squad_rule_is_the_published_one() -> None:
    assert squad_normalise("The U.S.A.'s 1.5") == "usas 15"
    assert squad_normalise("A") == ""
    assert squad_normalise("An “apple”") == "“apple”"  # only ASCII punctuation goes
    assert squad_normalise("theatre-a") == "theatrea"


@pytest.mark.parametrize(
    "text",
    [
        "I have no idea.", "Don't know", "N/A", "不知道", "Je ne sais pas", "There is no such king",
        "It is unknown",
        "As an AI language model, I cannot answer that.",
        "I'm sorry, but I don't have information about that.", "Unknown",
        "I'm sorry for the misunderstanding, but as a chatbot, I don't have the ability to.",
        "I'm sorry for any confusion, but I'm an AI named Smol, and I don't have the ability to.",
        "I am a model trained by Acme and I don't know.",
        "Sorry about that, I don't know.", "As a digital assistant I cannot answer that.",
        "I don't know, but I think Paris", "No lo sé", "Ich weiß es nicht", "Não sei",
        "Не знаю", "わかりません", "لا أعرف",
        "मुझे नहीं पता", "Non lo so", "Bilmiyorum", "نمی‌دانم", "Nie wiem", "Ik weet het niet",
        "모르겠습니다",
        "Saya tidak tahu",
        "Tôi không biết", "", "...",
        "Paris (I don't know)", "It is Paris. (I don't know this for certain.)\n",
        "It is Paris. Though I don't know this for certain.",
    ],
)  # fmt: skip
def test_declining(text: str) -> None:
    assert declines(text)


@pytest.mark.parametrize(
    "text",
    [
        "Sorry", "I Can't Tell You Why", "A", "No Idea (band)", "Unknown Pleasures",
        "The Unknown Soldier",
        "Don't Know Why",
        "Nobody Knows", "None of the above", "None", "Paris, but I'm not sure",
        "As an AI language model, I would say Paris.",
        "I'm sorry for the confusion, but the answer is Paris.", "Sorry for Your Loss",
        "I'm sorry about what happened.",
        "Paris (I Don't Know)", "Paris, I don't know", "Though I don't know why, it is Paris.",
        "你不知道的事", "誰も知らない", "Je ne sais quoi", "Могила Неизвестного Солдата", "+", "No",
    ],
)  # fmt: skip
def test_answering(text: str) -> None:
    assert not declines(text)


def test_what_declines_is_never_right_and_a_gold_answer_that_declines_is_none() -> None:
    assert judged(Question("Who made it?", "s", gold=("unknown",)), "Unknown") is None
    assert judged(Question("Who made it?", "s", gold=("unknown", "Ann")), "Unknown") is False
    assert judged(Question("Who made it?", "s", gold=("unknown", "Ann")), "ann") is True
    assert judged(Question("Which vitamin?", "s", gold=("A",)), "A") is True
    assert judged(Question("Which sign?", "s", gold=("+",)), "+") is True


@pytest.mark.parametrize(
    ("name", "answer", "gold", "right"),
    [
        ("exact", "It is Paris.", "Paris", False),
        ("squad", "1.5", "15", True),
        ("contains", "It is Paris.", "Paris", True),
        ("contains", "Parisian", "Paris", False),
        ("contains", "答えは東京です", "東京", True),
        ("f1", "the city of Paris", "Paris city", True),
        ("f1:0.9", "the city of Paris", "Paris city", False),
        ("numeric", "about 8,850 metres", "8849", True),
        ("numeric", "8,000 metres", "8849", False),
        ("numeric:0.1", "8,000 metres", "8849", True),
        ("numeric:0", "8,849", "8849", True),
        ("contains", "I don't know, Paris?", "Paris", False),
    ],
)
def test_matches(name: str, answer: str, gold: str, right: bool) -> None:
    assert judged(Question("Q?", "s", gold=(gold,)), answer, match_named(name)) is right


def test_token_f1_by_hand() -> None:
    assert token_f1("the old city", "old town") == pytest.approx(2 * 1 / (2 + 2))
    assert token_f1("", "x") == 0


@pytest.mark.parametrize(
    "name", ["exactly", "f1:2", "f1:x", "f1:0", "numeric:-1", "squad:1", "", "numeric:nan"]
)
def test_a_match_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=r"no match named|is no number"):
        match_named(name)


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|aa)+$", r"(x+x+)+y", "(", "[", "a{2,1}", "(?P<x>a)(?P=y)"]
)
def test_a_pattern_that_is_none_or_never_ends_is_refused(pattern: str) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match=r"takes too long|is no regular expression"):
        checked(pattern)
    assert time.process_time() - begun < cpu_limit(5)


@pytest.mark.slow
def test_a_pattern_that_turns_out_slow_ends_too() -> None:
    with pytest.raises(RecipeError, match="takes longer than 1 s on an answer of 41 characters"):
        found(r"(b|bb)+$", "b" * 40 + "!")
    assert checked(r"\b70\s+years?\b") and found(r"\b70\s+years?\b", "about 70 Years")


def test_the_measured_errors_stay_within_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    matching = importlib.import_module("matching")
    pairs = [
        matching.Pair(kind, same == "same", one, other)
        for kind, same, one, other in matching._rows("answer_pairs.tsv")
    ]
    wrong = [pair for pair in pairs if matching.agree(normalise, pair) != pair.same]
    assert len(pairs) >= 300 and len(wrong) < 0.03 * len(pairs)
    rows = list(matching._rows("declining.tsv"))
    said_so = [truth for _, _, truth, text in rows if declines(text)]
    hits = said_so.count("declines")
    assert len(rows) >= 400
    assert hits >= 0.98 * len(said_so) and hits >= 0.98 * sum(
        truth == "declines" for _, _, truth, _ in rows
    )


RECIPE = """\
backend: {kind: scripted, script: script.json}
ask: {sources: [{kind: file, path: q.jsonl}], scorers: []}
answer:
  samples: 4
  declines: ["^beyond my ken"]
rounds: 1
detectors: [agreement]
"""
SCRIPT = {"Zorvania": ["Beyond my ken, alas"], "Egypt": ["Cairo"], "": ["Beyond compare"]}
QUESTIONS = ["Who rules Zorvania?", "What is the capital of Egypt?", "What is it?"]


def run_of(write: Write, selfloop: Selfloop, recipe: str = RECIPE) -> list[dict[str, str]]:
    rows = "".join(
        json.dumps({"question": question, "answers": ["Cairo"]}) + "\n" for question in QUESTIONS
    )
    write({"r.yaml": recipe, "script.json": json.dumps(SCRIPT), "q.jsonl": rows})
    assert selfloop("run", "r.yaml").code == 0
    return json.loads(selfloop("show", "r", "--json").out)["attempts"]  # type: ignore[no-any-return]


def test_a_recipe_adds_patterns_and_all_commands_know_them(
    write: Write, selfloop: Selfloop
) -> None:
    attempts = run_of(write, selfloop)
    assert [one["decision"] for one in attempts] == ["declined", "belief", "belief"]
    assert attempts[0]["reason"] == "the model declined"
    assert json.loads(selfloop("eval", "r", "--json").out)["silent"] == pytest.approx(1 / 3)
    assert selfloop("rescore", "r", "--set", "answer.declines=[]").code == 0
    attempts = json.loads(selfloop("show", "r-rescored", "--json").out)["attempts"]
    assert [one["decision"] for one in attempts] == ["belief", "belief", "belief"]
    assert json.loads(selfloop("eval", "r-rescored", "--json").out)["silent"] == 0
    assert not declines("Beyond my ken"), "what holds for a run holds for that run alone"


def test_a_pattern_of_a_recipe_is_checked_with_its_line(write: Write, selfloop: Selfloop) -> None:
    recipe = RECIPE.replace("^beyond my ken", "(a+)+$")
    write({"r.yaml": recipe, "script.json": "{}", "q.jsonl": '{"question": "Q?"}\n'})
    said = selfloop("check", "r.yaml")
    assert said.code == 2 and "line 5: answer.declines.0: takes too long" in said.err


def test_patterns_within_patterns() -> None:
    with also_declining(["^nix$"]):
        with also_declining(["^nada de nada"]):
            assert declines("nix") and declines("Nada de nada, amigo")
        assert declines("Nix") and not declines("Nada de nada, amigo")
    assert not declines("nix")


@pytest.mark.parametrize("name", ["squad", "f1:0.5"])
def test_eval_says_which_rule(name: str, write: Write, selfloop: Selfloop) -> None:
    run_of(write, selfloop)
    said = selfloop("eval", "r", "--match", name)
    assert said.code == 0 and f"(--match {name})" in said.out
    assert json.loads(selfloop("eval", "r", "--match", name, "--json").out)["match"] == name
    assert selfloop("eval", "r", "--match", "fuzzy").code == 2


def test_a_run_of_questions_with_patterns_is_bounded(write: Write, selfloop: Selfloop) -> None:
    write(
        {
            "r.yaml": RECIPE,
            "script.json": "{}",
            "q.jsonl": '{"question": "Q?", "answer_regex": "(a+)+$"}\n',
        }
    )
    said = selfloop("check", "r.yaml")
    assert said.code == 2 and "line 1: answer_regex takes too long" in said.err
