"""A text that is no answer never becomes a belief; the rules, both ways, and the faults they mend.

The faults are those of `faults.md`: a sample that is "<think>", an answer that repeats its
question, one question asked twice in other words.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Selfloop
from selfloop_plugins._decoding.tasks import GenerateTask
from selfloop_plugins._shared.echoes import echoes
from selfloop_plugins.export.dataset import rows
from selfloop_plugins.tuners.lora.training_examples import training_examples

from selfloop.config.prompts import Prompt, Prompts, continued
from selfloop.errors import NothingAnsweredError
from selfloop.history import History
from selfloop.records import Attempt, Completion, Message, Question, Request, Round, Sampling
from selfloop.storage.recorder import Recorder
from selfloop.storage.store import Store, attempts_of, rounds_of
from selfloop.testing import ScriptedBackend
from selfloop.text.answers import declines
from selfloop.text.gist import gist
from selfloop.text.nonanswers import THOUGHT, non_answer
from selfloop.text.thoughts import answered, closing, thought, without_thought

Write = Callable[[Mapping[str, str | bytes]], Path]
POLAND = "What is the capital of Poland?"
PROMPTS = Prompts()


def prompt(question: str, *, chat: bool = True) -> Prompt:
    return PROMPTS.render("answer", chat=chat, question=question)


# --- texts

NO_ANSWERS = [
    "",
    " ",
    "...",
    "—",
    "___",
    "**",
    "�",
    "ㅤ",
    "???",
    "|",
    "====",
    "<think>",
    "<think>\nOkay",
    "<THINK>",
    "<thinking>",
    "[THINK] hm",
    "◁think▷",
    "<|begin_of_thought|>",
    "<|START_THINKING|>",
    "<seed:think>",
    "<|channel|>analysis<|message|>The user",
    "<reasoning>",
    "<thought>",
    "<scratchpad>",
    "Answer: <think>",
    "<think",
    "<think></think>",
    "<think>x</think>\n",
    "Okay, so I need to figure out",
    "Let me think about",
    "Let's think step by step",
    "Hmm, the user is asking",
    "The question asks for",
    "Okay,",
    "First, we need to find the",
    "What is the capital of Poland?",
    "what is the capital of poland",
    "The capital of Poland is",
    "the capital of Poland",
    "Capital of Poland:",
    "What is the capital of France?",
    "Is Warsaw the capital?",
    "I'm sorry, but I can't assist with that.",
    "I cannot provide that information",
    "I won't answer this",
    "Unfortunately, I cannot determine",
    "I apologize for the confusion",
    "This question cannot be answered",
    "There is not enough information",
    "As an AI language model, I",
    "As an AI, I don't",
    "I am an AI",
    "I'm just a language model",
    "As a large language model",
    "I don't have access to",
    "My training data",
    "How can I help you?",
    "Sure!",
    "Sure, here is",
    "Certainly! Here is the answer:",
    "Here is the answer:",
    "Great question!",
    "Please provide more context",
    "Could you please clarify",
    "The answer is",
    "The correct answer is:",
    "The answer is right.",
    "Als KI-Sprachmodell kann",
    "En tant que modèle de langage",
    "Como modelo de lenguaje",
    "作为一个人工智能语言模型",
    "AIとして",
    "Как языковая модель",
    "Answer:",
    "Answer: ",
    "A:",
    "Question:",
    "Question: Who wrote Emma?",
    "Q: What",
    "Final answer:",
    "**Answer:**",
    "<|im_end|>",
    "<|im_start|>assistant",
    "</s>",
    "[INST]",
    "assistant\nfoo",
    "### Response:",
    "{question}",
    "[answer]",
    "[Your answer here]",
    "<answer></answer>",
    "Your answer here",
    "What is the largest planet in the solar system?",
    "What is the largest planet in the solar system",
    "Who wrote the play Hamlet",
    "On which continent is Egypt",
    "User: hi",
    "Hello! How can I assist you today?",
    "Thank you for your question",
    "\n",
    "\t\n",
    "”",
    "''",
    "`",
    "##",
    "-",
    "•",
    "*",
    "<|endoftext|>",
    "<think>\n\n</think>",
    "<think>The user wants",
    "<THOUGHT>",
    "<inner_monologue>",
    "<chain_of_thought>",
    "<|thinking|>",
    "<thinking>\nWarsaw is",
    "[Reasoning]",
    "<analysis>",
    "Thinking Process:",
    "**Thinking:**",
    "Thought:",
    "Thought: I need to find",
    "Reasoning: The",
    "Let me recall.",
    "Alright, let's see",
    "I think I should",
    "We are asked to",
    "We're asked for the capital",
    "The user is asking about",
    "I need to recall the capital",
    "To answer this question, we",
    "To determine the capital",
    "Poland? What is the capital of Poland?",
    "Question: What is the capital of Poland?",
    "What is the capital of Poland",
    "The capital of Poland?",
    "The capital of Poland is:",
    "capital of Poland",
    "So the capital of Poland is",
    "Is it Warsaw?",
    "I am not able to answer that",
    "I can't answer that question.",
    "I'm sorry, I cannot help",
    "Sorry, I can't do that.",
    "I'm afraid I can't say",
    "I do not have enough information to answer",
    "I don't have personal opinions",
    "As an artificial intelligence",
    "As an AI developed by OpenAI",
    "As a language model, I",
    "I am a large language model",
    "I'm an AI assistant",
    "I am ChatGPT",
    "My name is Qwen",
    "I'm Claude",
    "Of course! I'd be happy to help",
    "Sure, I can help with that.",
    "Sure thing!",
    "Here's the answer:",
    "Here is a short answer:",
    "Below is the answer:",
    "Thanks for asking!",
    "No problem!",
    "Great question! The",
    "You are a helpful assistant",
    "Please let me know",
    "Please provide the question",
    "I'd be happy to",
    "I hope that helps!",
    "Answer :",
    "ANSWER:",
    "Answer -",
    "Answer: Answer:",
    "Q:",
    "A: ",
    "Final Answer:",
    "The final answer is:",
    "Correct answer:",
    "Question: On which continent is Egypt?",
    'Who wrote the play "Hamlet"?',
    "<start_of_turn>model",
    "assistant:",
    "User:",
    "{answer}",
    "{{answer}}",
    "<insert answer here>",
    "[insert city]",
    "[city]",
    "(insert answer)",
    "[blank]",
    "TODO",
    "Lorem ipsum",
    "Output:",
    "Explanation:",
    "Note:",
    "...?",
    "¿?",
    "Désolé, je ne peux pas répondre",
    "Lo siento, pero no puedo",
    "Es tut mir leid, aber ich kann",
    "抱歉,我无法回答",
    "对不起,我不能",
    "申し訳ありませんが",
    "Извините, я не могу",
    "Desculpe, não posso",
    "Mi dispiace, ma non posso",
    "<think>\nFirst</think>\n<think>\nagain",
    "</think>",
    "Okay. The user",
    "Hmm...",
    "Well...",
    "Um, let me think",
    "The question is asking for the capital of Poland.",
    "This is a question about geography.",
    "This question asks about",
    "I will answer the question.",
]
INSTRUCTIONS = [
    "Answer the quiz questions in one to three words",
    "If you do not know, write",
    "in one to three words",
    "one to three words",
    "Answer the quiz questions",
    "If you do not know, write: I don't know",
    "quiz questions in one to three words",
]
# To any question: titles, names, signs and numbers that look like what is above.
ANSWERS = [
    "Warsaw",
    "As an AI",
    "Question Mark",
    "The Answer",
    "Answer",
    "Warsaw, Poland",
    "The capital of Poland is Warsaw",
    "It is Warsaw.",
    "Answer: Warsaw",
    "A: Warsaw",
    "Sure! The answer is Warsaw",
    "Sure",
    "I don't know",
    "<think>hm</think>\n\nWarsaw",
    "**Warsaw**",
    '"Warsaw"',
    "Poland",
    "Let It Be",
    "Let Me Think About It",
    "I Can't Help Myself",
    "Help!",
    "Who's Afraid of Virginia Woolf?",
    "Where Is the Love?",
    "What's Up?",
    "I, Robot",
    "I Am Legend",
    "Sorry",
    "Sorry Seems to Be the Hardest Word",
    "Please Please Me",
    "Hello",
    "Hello, Goodbye",
    "Thank You",
    "OK",
    "Well",
    "Step by Step",
    "Thinking, Fast and Slow",
    "The Thinker",
    "Jupiter",
    "six",
    "Africa",
    "William Shakespeare",
    "three",
    "Unknown Pleasures",
    "None",
    "Nobody",
    "A",
    "+",
    "C++",
    "C#",
    "€",
    "1945",
    "-5",
    "3/4",
    "10:30",
    "東京",
    "Yes",
    "No",
    "The Question",
    "Of Mice and Men",
    "To Kill a Mockingbird",
    "First Man",
    "I Want to Hold Your Hand",
    "Here Comes the Sun",
    "Great Expectations",
    "Good Question",
    "Artificial intelligence",
    "Language model",
    "AI",
    "ChatGPT",
    "The Last Question",
    "I think, therefore I am",
    "To be, or not to be",
    "Thought Police",
    "Reason",
    "Analysis",
    "Meditations",
    "A Question of Sport",
    "The A-Team",
    "Q",
    "Q-tip",
    "The Q",
    "O",
    "1",
    "0",
    "No.",
    "Sure Start",
    "Okay Computer",
    "OK Computer",
    "Wait",
    "So",
    "First",
    "Now",
    "First Blood",
    "Now and Then",
    "Well of Souls",
    "Let's Dance",
    "Let Us Pray",
    "Let It Go",
    "We Are the World",
    "I Will Survive",
    "I Will Always Love You",
    "I Am the Walrus",
    "I Am Malala",
    "I'm a Believer",
    "I'm Not There",
    "I Can't Get No Satisfaction",
    "I can see clearly now",
    "Sorry Sorry",
    "Unfortunate",
    "Here",
    "Here Comes Honey Boo Boo",
    "Hello Kitty",
    "Hi-5",
    "Hey Jude",
    "Hey!",
    "Thank You for Smoking",
    "Thank U, Next",
    "Please",
    "Please Don't Go",
    "What a Wonderful World",
    "What Ever Happened to Baby Jane?",
    "Dude, Where's My Car?",
    "Are You Being Served?",
    "Can You Feel the Love Tonight",
    "Do They Know It's Christmas?",
    "Who Framed Roger Rabbit",
    "Where the Wild Things Are",
    "When Harry Met Sally",
    "Why We Fight",
    "How the Grinch Stole Christmas",
    "How I Met Your Mother",
    "Whose Line Is It Anyway?",
    "Is This Love",
    "Have I Got News for You",
    "Never Let Me Go",
    "As You Like It",
    "As Good as It Gets",
    "An Assistant",
    "Assistant",
    "Assistant referee",
    "System of a Down",
    "User",
    "Human",
    "Human League",
    "Model T",
    "Chatbot",
    "Turing test",
    "Certainly Not",
    "Absolutely Fabulous",
    "Of Human Bondage",
    "Of course",
    "The answer is Warsaw",
    "The correct answer is Warsaw.",
    "The Answer Is Never",
    "Answer: 42",
    "Final answer: Warsaw",
    "Response time",
    "Result",
    "Warsaw.",
    "Warsaw\n",
    "Warsaw (Poland)",
    "Warsaw?",
    "Warsaw, the capital of Poland",
    "It is Warsaw",
    "Warszawa",
    "Варшава",
    "华沙",
    "ワルシャワ",
    "바르샤바",
    "وارسو",
    "Varsóvia",
    "<b>",
    "°C",
    "½",
    "π",
    "100%",
    "$5",
    "3.14",
    "-40",
    "1,000",
    "2001: A Space Odyssey",
    "7",
    "VII",
    "two",
    "C",
    "A+",
    "AB−",
    "Yes, it is",
    "No, never",
    "true",
    "false",
    "Null Island",
    "Placeholder",
    "Name",
    "Draft",
    "Your Name",
    "Text",
    "Blank Space",
    "Nothing Else Matters",
    "Nothing",
    "Step Up",
    "Think",
    "Think Different",
    "Thinking Out Loud",
    "Notes",
    "Note",
    "I",
    "I, Claudius",
    "It",
    "It Follows",
    "What",
    "Who",
    "The Who",
    "Why?",
    "Which",
    "Guess Who",
    "Doctor Who",
    "Interesting",
    "Good",
    "Great Britain",
    "Great Question Mark",
    "Hmm",
]
ANSWERS_TO = [
    ("What year did WWII end?", "1945"),
    ("Who wrote 'Emma'?", "Jane Austen"),
    ("Is the sky blue?", "The sky is blue"),
    ("Is the Earth round?", "Of course!"),
    ("Is Paris in France?", "Sure!"),
    ("Which is larger, Mars or Venus?", "Venus"),
    ("What is the capital city of Mexico?", "Mexico City"),
    ("What is the capital of Mexico?", "Mexico City"),
    ("Which came first, the chicken or the egg?", "the chicken"),
    ("Which punctuation mark ends a question?", "?"),
    ("Which HTML tag makes text strike through?", "<s>"),
    ("What is the sign for equality?", "="),
    ("Which book did Christie write?", "Why didn't they ask Evans?"),
    ("What question does Hamlet ask?", "To be or not to be?"),
    ("What song did Haddaway sing?", "What is love?"),
    ("What is the name of the largest ocean on Earth?", "Pacific Ocean"),
    ("What number comes after nine hundred ninety nine?", "one thousand"),
    ("Who was the first king of Rome?", "Romulus"),
    ("In which sport would you use a table tennis bat?", "Table tennis"),
    ("Who sang 'Let me think about it'?", "Ida Corr"),
    ("What did the Romans say?", "Carpe diem"),
    ("Who said 'I have a dream'?", "Martin Luther King Jr."),
]
ECHOES = [
    ("What is the capital of Egypt?", "the"),
    ("Which king of England and Scotland died in 1625?", "England"),
    ("Which treaty ended the war between England and France?", "France"),
    ("What is Hermes's name?", "Hermes"),
    ("What is Hermes' name?", "Hermes"),
    ("What is Hermes’s name?", "Hermes"),
    ("What is the capital of Poland?", "Poland"),
    ("What is the capital of Poland?", "Poland's"),
    ("What is the capital of Poland?", "It is in Poland."),
    ("What is the capital of Poland?", "The capital of Poland"),
    ("What is the capital of Poland?", "Poland's capital"),
    ("What are planets?", "a planet"),
    ("What do bakers bake?", "baked"),
    ("How do birds fly?", "By flying"),
    ("How do swimmers swim?", "swimming"),
    ("What is the city of São Paulo?", "Sao Paulo"),
    ("What is base-ball?", "baseball"),
    ("What is baseball?", "base-ball"),
    ("What sport is base ball?", "Baseball"),
    ("Which families live there?", "family"),
    ("Is Warsaw or Kraków the capital of Poland?", "Poland"),
    ("What war was fought between England and France?", "France"),
    ("ポーランドの首都はどこですか?", "ポーランド"),
    ("What is the difference between a crocodile and an alligator?", "crocodile"),
    ("Who wrote the plays of William Shakespeare?", "William Shakespeare"),
    ("What is the name of James's dog?", "James"),
    ("What is the boss's name?", "boss"),
    ("Who owns the Joneses' house?", "Jones"),
    ("What do you call a gas?", "a gas"),
    ("What language do the Japanese speak?", "Japanese"),
    ("What is the name of the famous Romeo and Juliet play?", "Romeo and Juliet"),
]
NO_ECHOES = [
    ("Which is larger between India and China?", "China"),
    ("Is Mars or Venus larger?", "Mars"),
    ("Is Mars or Venus larger?", "Venus"),
    ("Which came first, the chicken or the egg?", "chicken"),
    ("Which came first, the chicken or the egg?", "The egg"),
    ("Which is larger, the Sun, the Moon or Mars?", "The Sun"),
    ("Which is larger, the Sun, the Moon, or Mars?", "the Moon"),
    ("Which is larger, the Sun, the Moon, or Mars?", "Mars"),
    ("Is the Pacific Ocean or the Atlantic Ocean larger?", "Pacific"),
    ("Is the Pacific Ocean or the Atlantic Ocean larger?", "the Atlantic Ocean"),
    ("Which is larger, the Pacific Ocean or the Atlantic Ocean?", "The Pacific"),
    ("Is a whale a fish or a mammal?", "mammal"),
    ("Is a whale a fish or a mammal?", "a fish"),
    ("Which of Mars and Venus is larger?", "Venus"),
    ("Which of India and China is larger?", "India"),
    ("Between gold and silver, which is denser?", "gold"),
    ("Of gold and silver, which is denser?", "silver"),
    ("What is the plural of sheep?", "sheep"),
    ("What is the past tense of walk?", "walked"),
    ("What is the capital of Mexico?", "Mexico City"),
    ("What is the capital city of Mexico?", "Mexico City"),
    ("Is Cairo in Egypt?", "yes"),
    ("What year did WWII end?", "1945"),
    ("Who wrote 'Emma'?", "Jane Austen"),
    ("Who was older, Tom Hanks or Tom Cruise?", "Tom Hanks"),
    ("Is the capital of Australia Sydney or Canberra?", "Canberra"),
    ("Is the capital of Australia Sydney or Canberra?", "Sydney"),
    ("Did Tolkien or Lewis write Narnia?", "Lewis"),
    ("Is the answer true or false?", "True"),
    ("Who won the match, Germany vs Brazil?", "Germany"),
    ("Which is heavier: gold or lead?", "lead"),
    ("北京和上海哪个大,北京还是上海?", "上海"),
    ("Ist Berlin oder Bonn die Hauptstadt?", "Berlin"),
    ("What language is spoken in Germany?", "German"),
    ("What is the currency of Japan?", "Yen"),
    ("Who is the Queen of Denmark?", "Margrethe"),
    ("What do you call a person who paints?", "painter"),
    ("What is the opposite of hot?", "cold"),
    ("I don't know what?", "I don't know"),
    ("What is the capital of Egypt?", ""),
    ("What is the largest state of the United States?", "Alaska"),
]
WORDINGS = [
    "What is the capital of Utah?",
    "Which is the capital of Utah?",
    "What's the capital of Utah?",
    "What’s the capital of Utah",
    "Name the capital of Utah.",
    "Tell me the capital of Utah",
    "Tell me, what is the capital of Utah?",
    "Can you tell me what the capital of Utah is?",
    "Do you know what the capital of Utah is?",
    "WHAT IS THE CAPITAL OF UTAH",
    "what is capital of utah ?",
    "“What is the capital of Utah?”",
    "Please name the capital of Utah",
    "The capital of Utah is what?",
    "What is Utah's capital?",
    "What is the name of the capital of Utah?",
    "I would like to know the capital of Utah.",
    "Could you please tell me the capital of Utah?",
    "What is the capital of Utah, please?",
    "Give me the capital of Utah",
    "State the capital of Utah",
    "Q: What is the capital of Utah?",
    "Okay, what is the capital of Utah?",
    "Ｗhat is the capital of Utah？",
]
DIFFERENT = [
    ("Who was the first king of Rome?", "Who was the last king of Rome?"),
    ("What is the capital of North Korea?", "What is the capital of South Korea?"),
    ("What is 5 + 3?", "What is 5 - 3?"),
    ("What is 5 - 3?", "What is 3 - 5?"),
    ("What is 1.5 times 2?", "What is 15 times 2?"),
    ("What is -5 + 2?", "What is 5 + 2?"),
    ("What is C?", "What is C++?"),
    ("What is C#?", "What is C?"),
    ("When was Mozart born?", "Where was Mozart born?"),
    ("Who is the king of Spain?", "Who was the king of Spain?"),
    ("Tell me about Utah", "What is Utah?"),
    ("What is vitamin B12?", "What is vitamin B6?"),
    ("What happened at 10:30?", "What happened at 1030?"),
    ("Which river flows into the lake?", "Which river flows from the lake?"),
    ("What is not a mammal?", "What is a mammal?"),
    ("Who wrote Emma?", "Who wrote Emma Brown?"),
    ("Who is Mary's father?", "Who is the father?"),
    ("What is the largest city in Utah?", "What is the largest city of Utah?"),
    ("How many states are there?", "How many states were there?"),
]


def test_there_are_enough_of_each() -> None:
    assert len(NO_ANSWERS) >= 60
    assert len(ANSWERS) + len(ANSWERS_TO) >= 60


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
@pytest.mark.parametrize("text", NO_ANSWERS)
def test_no_answer(text: str, chat: bool) -> None:
    assert non_answer(POLAND, text, prompt(POLAND, chat=chat)) or declines(text)


@pytest.mark.parametrize("text", INSTRUCTIONS)
def test_the_instruction_of_the_prompt_is_no_answer(text: str) -> None:
    assert non_answer(POLAND, text, prompt(POLAND)) or declines(text)
    assert non_answer(
        POLAND, text, (Message("system", "Be quick."), Message("user", POLAND))
    ) is None or declines(text)


@pytest.mark.parametrize("question", [POLAND, "Who or what is meant?"])
@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_passes(text: str, question: str) -> None:
    assert non_answer(question, text, prompt(question)) is None


@pytest.mark.parametrize(("question", "text"), ANSWERS_TO)
def test_an_answer_to_its_question_passes(question: str, text: str) -> None:
    assert non_answer(question, text, prompt(question)) is None


# --- thoughts


@pytest.mark.parametrize(
    ("text", "mark", "answer"),
    [
        ("<think>\nHm", "<think>", None),
        (" <think>\nHm\n</think>\n\nParis", "<think>", "Paris"),
        ("Answer: <think>a</think>Paris", "<think>", "Paris"),
        ("Okay, so\n</think>\n\nParis", "", "Paris"),  # the prompt had opened it
        ("<think>a</think><think>b", "<think>", None),
        ("<think>a</think><think>b</think>Paris", "<think>", "Paris"),
        ("[THINK]a[/THINK]Paris", "[THINK]", "Paris"),
        ("◁think▷a◁/think▷Paris", "◁think▷", "Paris"),
    ],
)
def test_a_thought_and_what_follows_it(text: str, mark: str, answer: str | None) -> None:
    begun = thought(text)
    assert begun is not None
    assert (begun.mark, begun.answer) == (mark, answer)
    assert without_thought(text) == (text if answer is None else answer)


@pytest.mark.parametrize(
    "text", ["Paris", "The Thinker", "<b>", "1 < think", "Thinking, Fast and Slow", ""]
)
def test_no_thought(text: str) -> None:
    assert thought(text) is None


MARKS = (
    *(
        "<think>",
        "[THINK]",
        "◁think▷",
        "<seed:think>",
        "<|begin_of_thought|>",
        "<|START_THINKING|>",
    ),
    "<|channel|>analysis<|message|>",
)


@pytest.mark.parametrize("mark", MARKS)
def test_a_closing_mark_ends_the_thought_that_its_opening_mark_began(mark: str) -> None:
    begun = thought(f"{mark}Hm{closing(mark)}Paris")
    assert begun is not None
    assert begun.answer == "Paris"


def _draws(
    texts: Mapping[str, str], seen: list[Request]
) -> Callable[[list[Request]], list[Completion | None]]:
    def generate(requests: list[Request]) -> list[Completion | None]:
        seen.extend(requests)
        found = [texts.get(str(request.prompt).rpartition("A:")[2]) for request in requests]
        return [None if text is None else Completion(text, (1,), (-0.5,)) for text in found]

    return generate


def test_an_answer_has_the_stops_and_the_thought_has_not() -> None:
    request = Request(
        "A:",
        Sampling(0.7, max_tokens=24, stop=("\n",), decline_bias=2.0),
        n=4,
        seed=3,
        entropy=True,
    )
    opened = Completion(" <think>", (7, 8), (-0.1, -0.2), sample=2)
    seen: list[Request] = []
    texts = {" <think>": "\nHm.\n", " <think>\nHm.\n</think>": "Paris"}
    (result,) = answered(
        [(request, opened)], _draws(texts, seen), lambda request, sample: sample, 100
    )
    assert result == Completion("Paris", (1,), (-0.5,), sample=2, thought=" <think>\nHm.\n</think>")
    ending, answering = (one.sampling for one in seen)
    assert (ending.stop, ending.max_tokens, ending.decline_bias) == (("</think>",), 100, 0.0)
    assert answering == replace(request.sampling, skip_blank=True)
    assert [one.entropy for one in seen] == [False, True]


class Letters:
    """A vocabulary of characters: token 0 ends a text."""

    def is_end(self, token: int) -> bool:
        return token == 0

    def token_bytes(self, token: int) -> bytes:
        return chr(token).encode()


class Dictated:
    """A sampler that draws the characters of a text, and an output with likelihoods by number."""

    def __init__(self, text: str) -> None:
        self.left = [*map(ord, text), 0]

    def draw(self, output: Any) -> int:
        return self.left.pop(0)

    def logprob(self, token: int) -> float:
        return -float(token)


def written(text: str, **settings: Any) -> Completion:
    said = Dictated(text)
    request = Request("", Sampling(stop=("\n",), **settings))
    task = GenerateTask(0, 0, request, Letters(), said, None)  # type: ignore[arg-type]
    while task.result is None:
        task.receive(said)  # type: ignore[arg-type]
    return task.result


@pytest.mark.parametrize(
    ("text", "settings", "expected", "finish"),
    [
        ("\n\n ab\nc", {"skip_blank": True}, "ab\n", "stop"),
        ("\n\nab", {"skip_blank": True, "max_tokens": 3}, "a", "length"),
        ("\n\n\nab", {"skip_blank": True, "max_tokens": 3}, "\n", "length"),
        ("\n\nab", {}, "\n", "stop"),
    ],
)
def test_white_space_before_an_answer_is_no_part_of_it(
    text: str, settings: dict[str, Any], expected: str, finish: str
) -> None:
    result = written(text, **settings)
    assert (result.text.strip(), result.finish) == (expected.strip(), finish)
    assert [chr(token) for token in result.tokens] == list(expected)
    assert result.logprobs == tuple(-float(token) for token in result.tokens)


@pytest.mark.parametrize("limit", [0, 100])
def test_a_thought_that_is_not_ended_stays_as_it_is(limit: int) -> None:
    opened = Completion("<think>", (7,), (-0.1,))
    drawn = [(Request("A:"), opened)]
    assert answered(drawn, _draws({}, []), lambda request, sample: 0, limit) == [opened]


def test_without_the_model_an_answer_after_its_thought_has_no_log_probabilities() -> None:
    whole = Completion("<think>Hm</think> Paris", (7, 8), (-0.1, -0.2), margin=0.5)
    (result,) = answered([(Request("A:"), whole)], _draws({}, []), lambda request, sample: 0, 0)
    assert result == Completion("Paris", thought="<think>Hm</think>")


def test_a_prompt_goes_on_where_the_model_is() -> None:
    user, begun = Message("user", "Q"), Message("assistant", "A:")
    assert continued("A:", " x") == "A: x"
    assert continued((user, begun), " x") == (user, Message("assistant", "A: x"))
    assert continued((user,), "x") == (user, Message("assistant", "x"))


# --- echo


@pytest.mark.parametrize(("question", "answer"), ECHOES)
def test_echo(question: str, answer: str) -> None:
    assert echoes(question, answer)


@pytest.mark.parametrize(("question", "answer"), NO_ECHOES)
def test_no_echo(question: str, answer: str) -> None:
    assert not echoes(question, answer)


# --- one question


@pytest.mark.parametrize("wording", WORDINGS)
def test_one_question_in_other_words(wording: str) -> None:
    assert gist(wording) == gist(WORDINGS[0]) != ()


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_questions_that_differ(one: str, other: str) -> None:
    assert gist(one) != gist(other)


# --- whole runs


def played(
    folder: Path,
    selfloop: Selfloop,
    replies: Mapping[str, Sequence[str]],
    questions: str,
    more: str,
) -> Path:
    """Run a recipe over a file of questions on a script; return the folder of the run."""
    (folder / "script.json").write_text(json.dumps(replies))
    (folder / "questions.txt").write_text(questions)
    source = "[{kind: file, path: questions.txt}]"
    (folder / "s.yaml").write_text(
        f"backend: {{kind: scripted, script: script.json}}\n{more.format(source)}"
    )
    result = selfloop("run", "s.yaml")
    # nothing but empty texts answers nothing
    assert result.code in (0, NothingAnsweredError.exit_code), result.text
    return folder / "runs" / "s"


AGREEMENT = "rounds: 1\nask: {{questions: 9, sources: {0}, scorers: []}}\ndetectors: [agreement]\n"
PLAIN = "rounds: 1\nask: {{questions: 9, sources: {0}, scorers: []}}\n"
THINKS = "<think>\nThe user asks for a capital.\n</think>\n\nParis\n"


def test_fault_every_sample_is_a_thought(work: Path, selfloop: Selfloop) -> None:
    """faults.md: a thought with the default stop was a belief of 1.00 in "<think>"."""
    run = played(
        work, selfloop, {r"Answer:\s*$": [THINKS]}, "What is the capital of France?\n", AGREEMENT
    )
    (attempt,) = attempts_of(run)
    assert (attempt.decision, attempt.answer, attempt.confidence) == ("belief", "Paris", 1.0)
    assert attempt.draft is not None
    assert attempt.draft.thought.endswith("</think>")
    assert len(attempt.draft.logprobs) == 1, "of the answer alone"
    assert [sample.sample for sample in attempt.samples] == list(range(8))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "decision", "reason"),
    [
        ("<think>\nThe user asks", "undecided", f"no answer: {THOUGHT}"),
        (POLAND, "undecided", "no answer: the question again"),
        ("The capital of Poland is", "undecided", "no answer: the question again"),
        ("As an AI language model, I cannot say", "declined", "the model declined"),
        ("I cannot assist with that request.", "declined", "the model declined"),
        ("Answer:", "undecided", "no answer: words of the prompt"),
        ("Question: Who wrote Emma?", "undecided", "no answer: words of the prompt"),
    ],
)
def test_no_answer_is_no_belief_in_a_run_in_rescore_and_in_ask(
    reply: str, decision: str, reason: str, work: Path, selfloop: Selfloop
) -> None:
    run = played(work, selfloop, {r"Answer:\s*$": [reply]}, f"{POLAND}\n", AGREEMENT)
    # then nothing at all was answered, which ends with its own code
    only_thought = reply.startswith("<think>")
    code = NothingAnsweredError.exit_code if only_thought else 0
    assert selfloop("rescore", "runs/s", "--set", "decide.belief=0.5").code == code
    for folder in (run, work / "runs" / "s-rescored"):
        (attempt,) = attempts_of(folder)
        assert (attempt.decision, attempt.reason, attempt.confidence) == (decision, reason, None)
    assert rows(run, "sft", only=["belief"]) == rows(run, "preference") == []
    shown = selfloop("ask", "s.yaml", POLAND)
    assert shown.code == code
    if only_thought:
        assert shown.out.startswith("error: the model wrote nothing")
    else:
        assert shown.out.startswith("I don't know\n")
        assert reason in shown.out


def test_empty_text_is_no_belief(work: Path, selfloop: Selfloop) -> None:
    run = played(work, selfloop, {r"Answer:\s*$": ["\n"]}, f"{POLAND}\n", AGREEMENT)
    assert attempts_of(run)[0].decision in ("declined", "undecided")


def test_fault_a_recipe_without_detectors_leaves_an_echo_undecided(
    work: Path, selfloop: Selfloop
) -> None:
    """faults.md: "What is the capital of Poland? - Poland" was a belief of .93."""
    replies = {r"Poland\?\nAnswer:\s*$": ["Poland"], r"Answer:\s*$": ["Hermes"]}
    run = played(work, selfloop, replies, f"{POLAND}\nWhat is Hermes's name?\n", PLAIN)
    assert [(one.decision, one.confidence) for one in attempts_of(run)] == [("undecided", 0.5)] * 2


@pytest.mark.parametrize(
    "second", ["Which is the capital of Utah?", "Tell me, what's the capital of Utah?"]
)
def test_fault_one_question_across_rounds(second: str, work: Path, selfloop: Selfloop) -> None:
    """faults.md: the second wording was asked in a later round, and there were two beliefs."""
    recipe = "rounds: 2\nask: {{questions: 1, sources: {0}, scorers: []}}\ndetectors: [agreement]\n"
    replies = {r"Answer:\s*$": ["Salt Lake City"]}
    run = played(work, selfloop, replies, f"What is the capital of Utah?\n{second}\n", recipe)
    first, *later = attempts_of(run)
    assert first.decision == "belief"
    assert [(one.decision, one.reason) for one in later] == [
        ("dropped", "asked before: like 'What is the capital of Utah?'")
    ]
    assert len(History.from_rounds(rounds_of(run)).beliefs) == 1


def test_two_wordings_in_one_round_are_one_belief(work: Path, selfloop: Selfloop) -> None:
    replies = {r"Answer:\s*$": ["Salt Lake City"]}
    texts = (
        "What is the capital of Utah?\nWhich is the capital of Utah?\n"
        "What is the capital of Ohio?\n"
    )
    run = played(work, selfloop, replies, texts, AGREEMENT)
    assert [one.decision for one in attempts_of(run)] == ["belief"] * 3, "each is answered"
    assert len(History.from_rounds(rounds_of(run)).beliefs) == 2
    assert len(json.loads(selfloop("beliefs", "s", "--json").out)) == 2


def test_eval_asks_every_row_however_it_is_worded(work: Path, selfloop: Selfloop) -> None:
    played(work, selfloop, {r"Answer:\s*$": ["Salt Lake City"]}, f"{POLAND}\n", AGREEMENT)
    texts = ("What is the capital of Utah?", "Which is the capital of Utah?")
    lines = [json.dumps({"question": text, "answers": ["Salt Lake City"]}) for text in texts]
    (work / "data.jsonl").write_text("\n".join(lines))
    assert (
        json.loads(selfloop("eval", "s.yaml", "--data", "data.jsonl", "--json").out)["questions"]
        == 2
    )


# --- runs on disk that earlier versions made


def believed(text: str, answer: str, **more: Any) -> Attempt:
    return Attempt(
        Question(text, "test"), draft=Completion(answer), decision="belief", confidence=0.95, **more
    )


@pytest.fixture
def old(work: Path) -> Path:
    """A run in which texts that are no answer were held true."""
    store = Store(work / "runs" / "old", write=True)
    store.save_file("recipe.yaml", "backend: scripted\n")
    store.begin_session({})
    store.set_meta(model={"name": "m"})
    attempts = (
        believed(POLAND, "<think>"),
        believed("Who wrote Emma?", "Jane Austen"),
        believed("Who?", "As an AI, I"),
    )
    store.save_round(Round(1, attempts))
    store.close()
    return work / "runs" / "old"


def test_no_answer_of_an_old_run_is_held_shown_or_exported(old: Path, selfloop: Selfloop) -> None:
    assert [belief.answer for belief in History.from_rounds(rounds_of(old)).beliefs] == [
        "Jane Austen"
    ]
    assert [row["answer"] for row in json.loads(selfloop("beliefs", "old", "--json").out)] == [
        "Jane Austen"
    ]
    assert [row["completion"] for row in rows(old, "sft")] == ["Jane Austen"]
    assert [row["chosen"] for row in rows(old, "preference")] == ["Jane Austen"]


def test_no_answer_is_taught() -> None:
    """Nor held out; one that declines is, as before."""
    known = [believed(f"Who wrote book {i}?", f"Author {i}") for i in range(60)]
    unknown = [
        replace(
            believed(f"Where is place {i}?", "I don't know"), decision="declined", confidence=0.0
        )
        for i in range(60)
    ]
    thoughts = [believed(f"When was day {i}?", "<think>") for i in range(60)]
    history = History().with_attempts([*known, *unknown, *thoughts])
    taught, held = training_examples(history, decline_share=None, match_form=False, seed=0)
    assert {lesson.answer.split()[0] for lesson in (*taught, *held)} == {"Author", "I"}
    assert len(taught) + len(held) == 120


def test_what_is_stored_keeps_its_name_where_no_blank_is_skipped(work: Path) -> None:
    """The keys of completions that earlier versions stored: their runs go on without the model."""
    store = Store(work / "run", write=True)
    recorder = Recorder(ScriptedBackend({"": ["x"]}), store, lambda event: None)
    plain = Request("Answer:", Sampling(0.7, max_tokens=24, stop=("\n",)), seed=3)
    assert recorder.key(plain) == "1f4b666f5e7444723a261f001b6d39b4"
    assert (
        recorder.key(replace(plain, sampling=replace(plain.sampling, skip_blank=True)))
        != "1f4b666f5e7444723a261f001b6d39b4"
    )
    store.close()
