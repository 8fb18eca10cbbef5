"""`blank_slate`: the model asks with nothing before it but a frame.

For a chat model the frame is the empty user turn of its template, which it goes on to write
(Magpie, Xu et al. 2024, arXiv 2406.08464). For a base model it is a few words of text that
questions tend to follow. From round 2 a list of the run's own questions is a frame too. Frames are
drawn in proportion to their yield.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

from annotated_types import Ge, Gt, MinLen
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import AskContext, Component, Message, Question, Sampling, hookimpl
from selfloop.text.patterns import pattern

from ._writing import earlier_outcomes, first_question, generate_texts

OWN_QUESTIONS = "own"  # the frame of the run's own questions, as the record names it
LIST_LENGTH = 4  # own questions in a frame
TEXTS_PER_LIST = 8  # they share a list, and its cost
MIN_FRAME_SHARE = 0.05  # of the draws: the yield of a frame is known only while it is drawn
_CREDITED, _CREDITED_KEPT = 4, 2  # questions of each frame before it was ever drawn
# The text after the mark in a frame's last line begins the question. Left with no
# beginning, a small base model writes five fragments for each question; with one, a fragment for
# five questions.
FRAMES = (
    "Trivia\n\nQ:",
    "Trivia questions and answers\n\n1. What is the capital of",
    "Geography quiz for schools\n\n1. In which country is",
    "Geography quiz for schools\n\n1. Which river",
    "History quiz for schools\n\n1. In which year did",
    "History quiz for schools\n\n1. Who was the",
    "Science quiz for schools\n\n1. What is the",
    "Nature quiz\n\n1. Which animal",
    "Book quiz, with answers\n\n1. Who wrote",
    "Inventions and discoveries: a quiz\n\n1. Who invented",
    "Quiz of words and their meanings\n\n1. What do you call a",
    "Numbers quiz\n\n1. How many",
)
OPENINGS = ("", "What", "Who", "Which", "Where", "When", "How many", "In which")
# "1. ", "- ", "Q: "
_LIST_MARK = pattern(r"^\W*(\d+[.)]|-|\w+:)\s*")


class BlankSlate:
    """Draws questions at `temperature`; `oversample` texts for each question wanted, since many are
    fragments.

    Of `frames`, for base models, the last line may begin the question: "1. Who wrote". `openings`
    are put at the start of a chat model's user turn ("What", say). `own` lets the run's own
    questions of earlier rounds be a frame.
    """

    def __init__(
        self,
        *,
        temperature: Annotated[float, Gt(0)] = 0.8,
        top_p: Annotated[float, Gt(0)] = 0.95,
        max_tokens: Annotated[int, Ge(1)] = 32,
        oversample: Annotated[float, Ge(1)] = 1.7,
        frames: Annotated[tuple[str, ...], MinLen(1)] = FRAMES,
        openings: Annotated[tuple[str, ...], MinLen(1)] = OPENINGS,
        own: bool = True,
    ) -> None:
        self._sampling = Sampling(temperature, top_p=top_p, max_tokens=max_tokens, stop=("\n",))
        self._oversample, self._with_own = oversample, own
        self._frames, self._openings = frames, openings

    def ask(self, context: AskContext) -> list[Question]:
        """Return the written questions, fragments and all: the scorers sort them out."""
        count = max(1, round(context.n * self._oversample))
        rng = random.Random(context.seed)
        answered = _answered_questions(context) if self._with_own else []
        is_chat = context.backend.describe().chat
        frames = self._openings if is_chat else self._frames
        names = list(dict.fromkeys(map(_frame_name, frames)))
        if len(answered) >= LIST_LENGTH:
            names.append(OWN_QUESTIONS)
        draws = Counter(rng.choices(names, frame_weights(names, context), k=count))
        drawn_frames = []
        for frame in frames:
            drawn_frames += [frame] * draws[_frame_name(frame)]
        after_frames = self._after_turns if is_chat else self._after_texts
        return [
            *after_frames(context, drawn_frames),
            *self._after_own_questions(context, answered, draws[OWN_QUESTIONS], rng),
        ]

    def _after_turns(self, context: AskContext, openings: Sequence[str]) -> list[Question]:
        """Return the questions that a chat model writes into user turns with these openings."""
        prompts = [(Message("user", opening),) for opening in openings]
        written = generate_texts(context, prompts, self._sampling, open_turn=True)
        return list(_joined_questions(openings, openings, written))

    def _after_texts(self, context: AskContext, frames: Sequence[str]) -> list[Question]:
        """Return the questions that a base model writes after text frames."""
        written = generate_texts(context, frames, self._sampling)
        return list(_joined_questions(frames, list(map(_opening_of, frames)), written))

    def _after_own_questions(
        self, context: AskContext, answered: Sequence[str], count: int, rng: random.Random
    ) -> list[Question]:
        """Return the questions that the model writes after lists of the run's own."""
        prompts = []
        for _ in range(math.ceil(count / TEXTS_PER_LIST)):
            examples = "\n".join(f"- {text}" for text in rng.sample(answered, LIST_LENGTH))
            prompts.append(context.prompt("blank_slate_own", examples=examples))
        texts: list[str] = []
        for samples in generate_texts(context, prompts, self._sampling, n=TEXTS_PER_LIST):
            texts += samples
        questions = map(first_question, texts[:count])
        return [Question(text, "blank_slate", via=OWN_QUESTIONS) for text in questions if text]


def _joined_questions(
    frames: Sequence[str], openings: Sequence[str], written: Sequence[Sequence[str]]
) -> Iterator[Question]:
    """Yield the questions that begin with the opening of each frame and go on as it was written."""
    for frame, opening, texts in zip(frames, openings, written, strict=True):
        for text in texts:
            question = _joined_question(opening, text)
            if question:
                yield Question(question, "blank_slate", via=_frame_name(frame))


def _frame_name(frame: str) -> str:
    """Return a frame as the record names it."""
    return one_line(frame) or "empty turn"


def _opening_of(frame: str) -> str:
    """Return the beginning of a question in a frame's last line, behind its list mark."""
    last_line = frame.rpartition("\n")[2]
    mark = _LIST_MARK.match(last_line)
    return last_line[mark.end() :] if mark else ""


def _joined_question(opening: str, text: str) -> str:
    """Return the question that `text` ends, or an empty string where it says nothing."""
    if not first_question(text):
        return ""
    # no space before it and a capital: it does not go on, it begins a question of its own
    begins_anew = text[:1].isupper()
    return first_question(text if begins_anew else opening + text)


def _answered_questions(context: AskContext) -> list[str]:
    """Return the questions of earlier rounds that the model did not decline.

    So the model asks more about the subjects that it knows best.
    """
    return [
        one_line(outcome.question.text)
        for outcome in earlier_outcomes(context)
        if outcome.decision in ("belief", "undecided")
    ]


def frame_weights(names: Sequence[str], context: AskContext) -> list[float]:
    """Return the weight of each frame: the share of its questions that were kept.

    Each has two kept of four on credit, and none falls under `MIN_FRAME_SHARE` of all.
    """
    written, dropped = Counter[str](), Counter[str]()
    for outcome in context.history.outcomes:
        if outcome.question.source == "blank_slate":
            written[outcome.question.via] += 1
            dropped[outcome.question.via] += outcome.decision == "dropped"
    yields = []
    for name in names:
        kept = written[name] - dropped[name]
        yields.append((kept + _CREDITED_KEPT) / (written[name] + _CREDITED))
    # with very many frames half of an equal share is less
    floor = min(MIN_FRAME_SHARE, 1 / (2 * len(names))) * sum(yields)
    return [max(weight, floor) for weight in yields]


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = "the model asks with nothing before it but an empty turn or a text frame"
    return [
        Component(
            "blank_slate",
            BlankSlate,
            doc=doc,
            paper="https://arxiv.org/abs/2406.08464",
            prompts=PROMPTS,
        )
    ]
