"""`blank_slate`: the model asks with nothing before it but a frame.

For a chat model the frame is the empty user turn of its template, which it goes on to write
(Magpie, Xu et al. 2024, arXiv 2406.08464). For a base model it is a few words of text that
questions tend to follow. From round 2 a list of the run's own questions is a frame too. Frames are
drawn in proportion to what they have yielded.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Gt, MinLen
from selfloop_plugins._shared.patterns import pattern
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line as line

from selfloop import Asking, Component, Message, Question, Sampling, hookimpl

from ._writing import draw, earlier, first_question

OWN = "own"
# What follows the mark at the beginning of a frame's last line begins the question. Left with no
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
_MARK = pattern(r"^\W*(\d+[.)]|-|\w+:)\s*")


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
        self._oversample, self._own = oversample, own
        self._frames, self._openings = frames, openings

    def ask(self, asking: Asking) -> list[Question]:
        """Return what was written, fragments and all: the scorers sort them out."""
        count = max(1, round(asking.n * self._oversample))
        rng = random.Random(asking.seed)
        good = _good(asking) if self._own else []
        bare = dict.fromkeys(
            map(_name, self._openings if asking.backend.describe().chat else self._frames)
        )
        names = [*bare, OWN] if len(good) >= 4 else [*bare]
        drawn = Counter(rng.choices(names, shares(names, asking), k=count))
        return [*self._framed(asking, drawn), *self._owned(asking, good, drawn[OWN], rng)]

    def _framed(self, asking: Asking, drawn: Counter[str]) -> list[Question]:
        """Return what follows the empty turn, or the frames."""
        if asking.backend.describe().chat:
            frames = [o for o in self._openings for _ in range(drawn[_name(o)])]
            written = draw(
                asking, [(Message("user", o),) for o in frames], self._sampling, open_turn=True
            )
            begun = frames
        else:
            frames = [f for f in self._frames for _ in range(drawn[_name(f)])]
            written = draw(asking, frames, self._sampling)
            begun = [_begun(frame) for frame in frames]
        found = zip(begun, frames, written, strict=True)
        texts = [
            (_question(start, text), _name(frame)) for start, frame, got in found for text in got
        ]
        return [Question(text, "blank_slate", via=via) for text, via in texts if text]

    def _owned(
        self, asking: Asking, good: Sequence[str], count: int, rng: random.Random
    ) -> list[Question]:
        """Return what follows lists of four of the run's own questions; eight texts share a list, and its cost."""
        lists = [rng.sample(good, 4) for _ in range(-(-count // 8))]
        prompts = [
            asking.prompt("blank_slate_own", examples="\n".join(f"- {q}" for q in own))
            for own in lists
        ]
        texts = [text for got in draw(asking, prompts, self._sampling, n=8) for text in got][:count]
        return [
            Question(found, "blank_slate", via=OWN)
            for text in texts
            if (found := first_question(text))
        ]


def _name(frame: str) -> str:
    return line(frame) or "empty turn"


def _begun(frame: str) -> str:
    last = frame.rpartition("\n")[2]
    return last[found.end() :] if (found := _MARK.match(last)) else ""


def _question(begun: str, text: str) -> str:
    if not first_question(text):
        return ""
    # no space before it and a capital: it does not go on, it begins a question of its own
    fresh = text[:1].isupper()
    return first_question(text if fresh else begun + text)


def _good(asking: Asking) -> list[str]:
    """Return the questions of earlier rounds that the model did not decline; what it knows the most of comes again."""
    return [line(o.question.text) for o in earlier(asking) if o.decision in ("belief", "undecided")]


def shares(names: Sequence[str], asking: Asking, floor: float = 0.05) -> list[float]:
    """Return the weight of each frame: the share of its questions that were asked, of which it has
    four on credit.

    No frame falls under `floor` of all, for what it yields is known only while it is drawn.
    """
    written, lost = Counter[str](), Counter[str]()
    for outcome in asking.past.outcomes:
        if outcome.question.source == "blank_slate":
            written[outcome.question.via] += 1
            lost[outcome.question.via] += outcome.decision == "dropped"
    yields = [(written[name] - lost[name] + 2) / (written[name] + 4) for name in names]
    least = min(floor, 1 / (2 * len(names))) * sum(yields)
    return [max(one, least) for one in yields]


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
