"""The scorers: which texts are questions, and which are new."""

import random
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import cpu_limit
from selfloop_plugins._shared.nearest import NearestQuestions
from selfloop_plugins.scorers.answerable import Answerable
from selfloop_plugins.scorers.balance import Balance
from selfloop_plugins.scorers.novelty import Novelty
from selfloop_plugins.scorers.well_formed import WellFormed

from selfloop import AskContext, Attempt, History, Outcome, Question, Round
from selfloop.api.summary import drop_reasons
from selfloop.cli.summary import dropped_line
from selfloop.testing import ask_context, history_of
from selfloop.text.english.forms import opening_form
from selfloop.text.english.likeness import likeness, sketch

# Written for this test, over many forms; none is from a question set.
GOOD = """
What is the capital of Egypt?
Who wrote the play 'Hamlet'?
How many legs does a spider have?
Is the Nile longer than the Amazon?
Where was Ada Lovelace born?
When was São Paulo founded?
Which of the planets has rings?
On what continent is Peru?
What is the largest planet?
Which planet is the largest one?
Who painted the ceiling of the Sistine Chapel?
Who invented the telephone?
How fast can the cheetah run?
What does the liver produce?
Which country has a dragon on its flag?
Which animals carry their young in a pouch?
Who was king of England during World War I?
How long does it take light to reach the Earth?
What is the boiling point of water?
What do you call a baby kangaroo?
What is the chemical symbol for gold?
What is the name of the ship that sank on its maiden voyage?
Who was the first man in space?
In which ocean is the island of Mauritius?
What gas do plants absorb from the air?
How many strings does a violin have?
How many metres above sea level is La Paz?
Which language is spoken in Brazil?
What is the square root of 81?
After Napoleon was defeated at Waterloo, where was he exiled?
What colour do you get by mixing blue and yellow?
Who discovered penicillin?
who was the president of france in 1985?
what is the currency of japan?
What is the tallest building in the world?
Who is the author of "War and Peace"?
Which metal is liquid at room temperature?
What is the process by which plants make their food?
Into which sea does the Danube flow?
What is the Great Barrier Reef made of?
Who won the World Cup in 1998?
How many players are there in a football team?
What is the hardest natural substance?
Which organ pumps blood through the body?
What is the study of insects called?
How old was Mozart when he wrote his first symphony?
What is the freezing point of water in degrees Celsius?
Name the longest river of Africa?
In Greek mythology, who was the king of the gods?
Which bird lays the largest egg?
Who composed the opera "Carmen"?
What is the state bird of Texas?
What is the speed of light?
How many bones are in the human body?
Which instrument has 88 keys?
During which war was the Battle of the Bulge fought?
What is the main ingredient of hummus?
Who was Elizabeth I's mother?
Which two colours are on the flag of Poland?
What is the world's smallest country?
What vitamin do we get from sunlight?
What is the Sun mostly made of?
Who is the Greek god of the sea?
Of which country is Canberra the capital?
What was the name of the dog that first orbited the Earth?
Which river runs through the city of Cairo?
What do bees collect from flowers?
Which king had six wives?
How many sides does a hexagon have?
What part of the plant absorbs water?
Who was the last emperor of China?
Which U.S. state is known as the Sunshine State?
What did Alexander Fleming discover in 1928?
Which Shakespeare play features the character Iago?
What kind of animal is a Komodo dragon?
When did the first railway open?
How many hours are there in a day?
What is the longest bone in the human body?
Which scientist published his theory of gravity in 1687?
What is H2O commonly called?
""".strip().splitlines()
BAD = [
    ("", "not one question"),
    ("What is the capital of Egypt", "not one question"),
    ("What is it? Who is it?", "not one question"),
    ("What is the\ncapital of Egypt?", "not one question"),
    ("What is it??", "not one question"),
    ("What now?", "2 words"),
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


# Each is a question in form and does not stand alone, or is no single whole question.
NOT_ALONE = """
What is the name of the president?
Who is the author?
What is the name of the river?
What is the capital?
Who won the game?
What year was it founded?
When did the war end?
In which year did the war end?
During which war was it built?
What is the name of this river?
Which of these is a mammal?
Where was he born in 1809?
What is his wife's name?
What was the name of his wife?
What does the author say about Paris?
What is the main character's name?
What is shown in the picture?
Who was the first president?
Who was the youngest king?
What is the largest?
What is the name of the company?
Who directed the film?
What is the title of the book?
When was the company founded?
Where is the city located?
What is the population of the country?
How long is the river?
Who is the current president?
Who is the prime minister?
What happened in that year?
Which team won the match?
Who is the the author of Hamlet?
What is is the capital of Peru?
Is Paris in France or in Spain?
Which is longer, the Nile or the Amazon?
Is a tomato a fruit or a vegetable?
Who wrote Hamlet and when was it written?
What is the capital of Peru and what is the capital of Chile?
Paris is a city. What is its country?
The capital of France is what?
What is your favourite colour today?
What do you think about Paris?
What is the capital of ___?
The answer is 42, right?
Which of the following is a planet?
What is the meaning of the passage?
What was the cause of the accident?
What is the answer to the question?
What did she say to Peter?
How old are they in 1990?
When did they arrive in Boston?
What is its capital city?
Who is the narrator of the story?
What is the theme of the poem?
What is the setting of the novel?
What is the purpose of this study?
How many people live in the city?
Where did the battle take place?
Who was the leader of the group?
What was the name of the band?
What is the capital of [country]?
Who wrote the book?
How many goals did the player score?
What is the man doing?
What is the name of the girl's mother?
How many of the of the of the planets are there?
Can you name the capital of Peru?
What should I do in Rome?
What are those animals called?
When was the school built?
Who painted the painting?
What is the name of the school?
Which character dies at the end of the play?
What color is the car?
Who Is The Author Of The Book?
In what city was the event held?
Where is the president from?
What is my name in French?
What was it like there?
What does the speaker mean by freedom?
""".strip().splitlines()


def well_formed(text: str, **options: int) -> tuple[float, str]:
    (score,) = WellFormed(**options).score([Question(text, "test")], ask_context())
    return score.value, score.reason


@pytest.mark.parametrize("text", GOOD)
def test_well_formed(text: str) -> None:
    assert well_formed(text) == (1.0, "")


@pytest.mark.parametrize(("text", "reason"), BAD)
def test_ill_formed(text: str, reason: str) -> None:
    value, why = well_formed(text)
    assert value == 0.0
    assert reason in why


@pytest.mark.parametrize("text", NOT_ALONE)
def test_what_does_not_stand_alone(text: str) -> None:
    value, why = well_formed(text)
    assert value == 0.0 and why


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Who wrote Hamlet and when was it written?", "more than one question"),
        ("Which is longer, the Nile or the Amazon?", "offers answers to choose from"),
        ("Who is the the author of Hamlet?", "repeats itself ('the the')"),
        ("What is the capital of ___?", "has a gap to fill ('___')"),
        ("What is the name of the president?", "does not say which ('the president')"),
        ("What is the largest?", "does not say of what"),
        (
            "What is the name of the floating fountain?",
            "does not say which ('the floating fountain')",
        ),
        ("Which country has the most bars and why?", "more than one question"),
        ("Which university is Stanford?", "asks nothing that it does not say"),
        ("What is his wife's name?", "points at something unsaid ('his')"),
    ],
)
def test_each_drop_says_why(text: str, kind: str) -> None:
    assert kind in well_formed(text)[1]


@pytest.mark.parametrize(
    "text",
    [
        "长江有多长?",
        "Wie heißt die Hauptstadt von Peru?",
        "?" * 50,
        "the " * 29 + "?",
        "\udc80 is who?",
    ],
)
def test_well_formed_takes_any_text(text: str) -> None:
    assert well_formed(text)[0] in (0.0, 1.0)


@pytest.mark.parametrize(
    "text", ["Who are US presidents of the 1990s?", "What is the US capital city?"]
)
def test_the_country_is_no_pronoun(text: str) -> None:
    assert well_formed(text) == (1.0, "")


def test_bounds_count_words() -> None:
    assert well_formed("Who wrote Hamlet?")[0] == 1.0
    assert well_formed("Who wrote Hamlet?", min_words=4) == (0.0, "3 words")
    assert well_formed("Who was it then?", min_words=1, max_words=3) == (0.0, "4 words")


def novelty(
    texts: list[str], asked: tuple[str, ...] = (), dropped: tuple[str, ...] = (), **options: Any
) -> list[float]:
    scores = Novelty(**options).score(
        [Question(text, "test") for text in texts],
        replace(ask_context(), history=history_of(asked, dropped)),
    )
    return [round(score.value, 2) for score in scores]


EGYPT = "What is the capital of Egypt?"


@pytest.mark.parametrize(
    "text",
    [
        EGYPT,
        "the capital of Egypt is what",
        "WHAT, is the CAPITAL of Egypt",
        "Egypt of capital the is What",
    ],
)
def test_the_same_words_in_any_order_are_a_repeat(text: str) -> None:
    assert novelty([text], asked=(EGYPT,)) == [0.0]


def test_the_first_question_ever_is_new() -> None:
    assert novelty([EGYPT]) == [1.0]


def test_a_batch_is_compared_with_itself() -> None:
    assert novelty([EGYPT, EGYPT.lower(), "Who painted the ceiling?"])[:2] == [1.0, 0.0]


NEAR = [
    ("What is the capital of France?", "What is the capital city of France?"),
    ("What year was Napoleon born?", "When was Napoleon born?"),
    ("Who invented the telephone?", "Who was the inventor of the telephone?"),
    ("Who wrote Romeo and Juliet?", "Who is the author of 'Romeo and Juliet'?"),
    ("How long is the Mississippi river?", "How long is the Mississipi River?"),
    ("What is the largest city in Peru?", "In Peru, what is the biggest city?"),
    ("what is the currency of egypt?", "What is Egypt's currency?"),
    ("How many legs does a spider have?", "How many legs do spiders have?"),
    ("When was São Paulo founded?", "When was Sao Paulo founded?"),
]
FAR = [
    ("What is the capital of France?", "What is the capital of Peru?"),
    ("When was Napoleon born?", "Where was Napoleon born?"),
    (
        "Who was the first president of the United States?",
        "Who was the third president of the United States?",
    ),
    ("Who won the World Cup in 1998?", "Who won the World Cup in 2002?"),
    ("Who won the World Cup?", "Who won the World Cup in 2002?"),
    (
        "Which country borders Austria to the north?",
        "Which country borders Australia to the north?",
    ),
    ("What is the chemical symbol of iron?", "What is the chemical symbol of gold?"),
    (
        "Which large country lies on the border of northern Iran?",
        "Which large country lies on the border of northern Iraq?",
    ),
    ("东京在哪里?", "北京在哪里?"),
]


@pytest.mark.parametrize(("one", "other"), NEAR)
def test_other_wording_is_near(one: str, other: str) -> None:
    assert novelty([other], asked=(one,))[0] < 0.2 and novelty([one], asked=(other,))[0] < 0.2


@pytest.mark.parametrize(("one", "other"), FAR)
def test_another_name_number_or_kind_is_not_near(one: str, other: str) -> None:
    assert novelty([other], asked=(one,))[0] >= 0.2 and novelty([one], asked=(other,))[0] >= 0.2


def test_what_was_dropped_is_a_repeat_unless_there_was_no_room() -> None:
    """Else a source that gives it again and again would fill every turn with it."""
    assert novelty(
        ["what is the capital of Egypt?", "What is the capital of Peru?"], dropped=(EGYPT,)
    ) == [0.0, 1.0]
    full = History(
        1,
        (
            Outcome(
                Question(EGYPT, "test"),
                "dropped",
                round=1,
                reason="balance: form 'x' has its share (4)",
            ),
        ),
    )
    (score,) = Novelty().score([Question(EGYPT, "test")], replace(ask_context(), history=full))
    assert score.value == 1.0


def test_a_variant_is_not_near_what_it_is_a_variant_of() -> None:
    longest = "What is the longest river in the whole of Africa?"
    again = "Which river is the longest in the whole of Africa?"
    history = replace(ask_context(), history=history_of([longest]))
    linked = Question(again, "test", variant="reworded", variant_of=longest)
    sibling = Question(
        "The longest river in the whole of Africa is which?",
        "test",
        variant="reworded",
        variant_of=longest,
    )
    same = Question(longest.lower(), "test", variant="reworded", variant_of=longest)
    assert [s.value for s in Novelty().score([Question(again, "test")], history)] == [0.0]
    assert [s.value for s in Novelty().score([linked, sibling, same], history)] == [1.0, 1.0, 0.0]


def test_what_the_scorer_keeps_between_calls_changes_nothing() -> None:
    """A round again, or fewer questions than were scored before: as a new scorer would have it."""
    texts = [
        f"Who wrote the book number {i} of Ada Lovelace about the {word}?"
        for i in range(9)
        for word in ("sea", "sun")
    ]
    kept = Novelty()
    for asked in (texts[:9], texts[:12], texts[:3], [*texts[5:9], *texts[:2]], []):
        told = replace(ask_context(), history=history_of(asked))
        questions = [Question(text, "test") for text in texts]
        assert kept.score(questions, told) == Novelty().score(questions, told)


@pytest.mark.slow
def test_many_questions_are_quick() -> None:
    asked = [f"What is the capital of {i % 7}-{i}-land?" for i in range(4000)]
    scorer, told = Novelty(), replace(ask_context(), history=history_of(asked))
    scorer.score([], told)
    start = time.process_time()
    scores = scorer.score(
        [Question(f"In which year was king {i} of Peru born?", "test") for i in range(200)], told
    )
    assert time.process_time() - start < cpu_limit(10)
    assert all(score.value > 0.2 for score in scores)


def test_the_index_finds_the_nearest_of_all() -> None:
    """As a comparison with every question does; of several equally near, the earliest."""
    rng = random.Random(2)
    texts = [text for text in (*GOOD, *NOT_ALONE) for _ in range(3)]
    mixed = [" ".join(rng.sample(text.split(), k=max(1, len(text.split()) - 2))) for text in texts]
    mixed += ["?", "!?", "Who is Napoleon Bonaparte?", "Who is Napoleon Bonapare?"]
    sketches = [sketch(Question(text, "test")) for text in mixed]
    index = NearestQuestions()
    for place, item in enumerate(sketches):
        likenesses = [likeness(item, other) for other in sketches[:place]]
        best = max(likenesses, default=0.0)
        text = sketches[likenesses.index(best)].text if best else ""
        assert index.nearest(item) == (best, text)
        index.add([item])
    index.cut(50)
    again = NearestQuestions()
    again.add(sketches[:50])
    assert [index.nearest(item) for item in sketches] == [again.nearest(item) for item in sketches]


def test_embeddings_give_the_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def embed(texts: list[str], backend: object) -> Any:
        calls.append(list(texts))
        return np.array([[text.count("a"), text.count("b") + 0.0] for text in texts])

    monkeypatch.setattr("selfloop_plugins._shared.embedding.embed", embed, raising=False)
    scorer = Novelty(by="embeddings")
    told = replace(ask_context(), history=history_of(["aaaa", "bbbb"]))
    found = scorer.score([Question(text, "test") for text in ("ab", "aa", "b", "ccc")], told)
    assert [round(score.value, 2) for score in found] == [0.29, 0.0, 0.0, 1.0]
    assert found[0].reason == "like 'aaaa' (cosine 0.71)" and found[3].reason == ""
    scorer.score([Question("ab", "test")], told)
    assert sorted(text for call in calls for text in call) == sorted(
        ["aaaa", "bbbb", "ab", "aa", "b", "ccc"]
    )
    variant = Question("aab", "test", variant="reworded", variant_of="aaaa")
    (score,) = scorer.score([variant], told)
    assert score.reason.startswith("like 'bbbb'")


def test_the_reason_names_the_nearest() -> None:
    (score,) = Novelty().score([Question(EGYPT, "test")], ask_context(asked=["Who was it?", EGYPT]))
    assert score.reason == "like 'What is the capital of Egypt?'"


@pytest.mark.parametrize(
    "text", ["", "???", "\x1b[2J", "\udc80", "富士山はどこですか", "x" * 10_000]
)
def test_odd_texts_have_a_number_too(text: str) -> None:
    assert 0.0 <= novelty([text, EGYPT], asked=(EGYPT,))[0] <= 1.0


# --- answerable

SHORT = """
What is the capital of Egypt?
Who wrote Hamlet?
How many legs does a spider have?
Who was the first president of the United States?
What is France's capital?
Who is the president of Princeton?
What is a baby kangaroo called?
What is the chemical symbol of iron?
Where was Ada Lovelace born?
How old was Mozart when he died?
Is the Nile longer than the Amazon?
What is 7 + 5?
Which river flows through Paris?
What is the largest planet?
What does NASA stand for?
In which country is the Sahara Desert?
What do bees collect from flowers?
Who was Napoleon's wife?
What is the longest bone in the human body?
What colour is a ruby?
How do you say hello in French?
What is the Sun made of?
Which animal has the largest brain?
Who is the Greek god of the sea?
What are the colours of the French flag?
When did the American Civil War begin?
What is the name of the longest river in Asia?
Who is Prince Harry's brother?
What was the first film by Pixar?
What is Queen Elizabeth's dog called?
""".strip().splitlines()
LONG = """
Why is the sky blue?
How does a car engine work?
How do I bake bread?
Who was Benjamin Franklin?
Who is Prince Arthur?
What is Columbia?
What is the Caspian Sea?
What was the Cold War?
What is a hexagon?
What is photosynthesis?
What is the difference between a virus and a bacterium?
What happened in 1914?
What do you think about Paris?
What is the best way to learn French?
What is the significance of the Magna Carta?
What are the main causes of World War I?
What would happen if the Moon vanished?
What is Einstein best known for?
What is Paris known for?
What does democracy mean?
What is the purpose of the United Nations?
Can you describe the water cycle?
What are some rivers in Africa?
What does a catalyst do?
Who was Charles de Gaulle?
Who is David of Wales?
What is the meaning of life?
How did Rome fall?
What is the history of Rome?
Is it better to live in Rome?
What are the benefits of yoga?
What is the role of the liver?
""".strip().splitlines()


def answerable(text: str) -> tuple[float, str]:
    (score,) = Answerable().score([Question(text, "test")], ask_context())
    return score.value, score.reason


@pytest.mark.parametrize("text", SHORT)
def test_a_few_words_answer(text: str) -> None:
    assert answerable(text) == (1.0, "")


@pytest.mark.parametrize("text", LONG)
def test_a_few_words_do_not_answer(text: str) -> None:
    value, why = answerable(text)
    assert value == 0.0 and why.startswith("asks ")


@pytest.mark.parametrize(
    "text", ["", "?", "长江有多长?", "x" * 10_000, "who is " * 1000 + "?", "\udc80"]
)
def test_answerable_takes_any_text(text: str) -> None:
    assert answerable(text)[0] in (0.0, 1.0)


# --- balance


def balance(
    texts: list[str], ask_context: AskContext, topic: str = "", **options: Any
) -> list[tuple[float, str]]:
    scores = Balance(**options).score(
        [Question(text, "test", topic) for text in texts], ask_context
    )
    return [(score.value, score.reason) for score in scores]


@pytest.mark.parametrize(
    ("text", "its"),
    [
        ("What is the capital of Egypt?", "what is the capital"),
        ("Who wrote Hamlet?", "who wrote"),
        ("Where was Ada Lovelace born?", "where was _"),
        ("In 1998, who won?", "in _"),
        ("Is it?", "is it"),
        ("", ""),
    ],
)
def test_forms(text: str, its: str) -> None:
    assert opening_form(text) == its


def test_a_form_has_its_share_of_what_the_round_wants() -> None:
    texts = [f"Who wrote {name}?" for name in ("Ada", "Bel", "Cid", "Dora", "Eva", "Finn")]
    told = replace(ask_context(), n=10)
    assert [v for v, _ in balance([*texts, "Where was Ada born?"], told)] == [1, 1, 1, 1, 0, 0, 1]
    assert balance(texts, told)[-1] == (0.0, "form 'who wrote' has its share (4)")
    assert [v for v, _ in balance(texts, told, min_questions=1)] == [1, 1, 0, 0, 0, 0]
    assert [v for v, _ in balance(texts, replace(told, n=50))] == [1] * 6
    assert [v for v, _ in balance(texts, told, form_share=1.0)] == [1] * 6


def test_what_the_round_has_counts_and_earlier_rounds_do_not() -> None:
    def told(number: int, decision: Any = "undecided") -> AskContext:
        done = tuple(
            Outcome(Question(f"Who wrote {c}?", "x"), decision, round=number) for c in "ABC"
        )
        return replace(ask_context(), n=7, round=2, history=History(1, done))

    texts = ["Who wrote Ada?", "Who wrote Bel?"]
    assert [v for v, _ in balance(texts, told(2))] == [1, 0]
    assert [v for v, _ in balance(texts, told(1))] == [1, 1]
    assert [v for v, _ in balance(texts, told(2, "dropped"))] == [1, 1]


def test_a_topic_has_its_share_and_no_topic_is_none() -> None:
    texts = [
        "Who wrote Ada?",
        "When was Bel?",
        "Where is Cid?",
        "How old is Dora?",
        "Which sea is deep?",
    ]
    assert [v for v, _ in balance(texts, ask_context(), topic="Rivers")] == [1, 1, 1, 1, 0]
    assert (
        balance(texts, ask_context(), topic="Rivers")[-1][1] == "topic 'rivers' has its share (4)"
    )
    assert [v for v, _ in balance(texts, ask_context())] == [1] * 5


@pytest.mark.parametrize(
    "text",
    [
        "Which a is " + "A" * 5000 + "!?",
        "Which a is " + "A" * 40 + "-?",
        "Which a is " + "A " * 90 + "-?",
        "What is " + "the " * 20 + "x" * 50_000 + "?",
        "Who " + "a, " * 300 + "?",
        "What is the " + "A.b-" * 200 + " of?",
        "who was " + "of the " * 90 + "x!?",
        "who was " + "of the " * 9000 + "x!?",
    ],
)
def test_no_text_takes_long(text: str) -> None:
    start = time.process_time()
    well_formed(text, max_words=10**6)
    answerable(text)
    novelty([text], asked=(EGYPT,))
    assert time.process_time() - start < cpu_limit(5)


# --- what a summary makes of their reasons


def test_drops_are_counted_by_reason_and_not_by_question() -> None:
    reasons = [
        *(
            "well_formed: " + well_formed(text)[1]
            for text in (*NOT_ALONE, "What now?", "no question")
        ),
        *("novelty: like 'who was it'", 'novelty: like "who\'s it"', "novelty: dropped before"),
        "balance: form 'what is the capital' has its share (4)",
        "mine: 0.25 is below 0.5",
    ]
    attempts = tuple(Attempt(Question(r, "x"), decision="dropped", reason=r) for r in reasons)
    found = drop_reasons([Round(1, attempts)])
    assert found["novelty"] == {"like an earlier one": 2, "dropped before": 1}
    assert found["balance"] == {"form has its share": 1} and found["mine"] == {"n is below n": 1}
    assert {"points at something unsaid", "does not say which", "too short or too long"} <= set(
        found["well_formed"]
    )
    assert len(found["well_formed"]) < 11
    assert sum(sum(counts.values()) for counts in found.values()) == len(reasons)
    line = dropped_line({"novelty": found["novelty"], "balance": found["balance"]})
    assert (
        line == "dropped 3 by `novelty` (2 like an earlier one, 1 dropped before), 1 by `balance`"
    )
    assert dropped_line({}) == "" == dropped_line(drop_reasons([Round(1, ())]))
