"""`blank_slate`: the model asks with nothing before it but a frame.

For a chat model the frame is the empty user turn of its template, which it goes on to write (Magpie, Xu et
al. 2024, arXiv 2406.08464). For a base model it is a few words of text that questions tend to follow.
"""

import random
from typing import Annotated

from annotated_types import Ge, Gt

from selfloop import Asking, Component, Message, Question, Sampling, hookimpl

from .writing import draw, first_question

FRAMES = (
    "A general knowledge quiz, with short answers.\n\n1. Question:",
    "Pub quiz night. Every question has one short, certain answer.\n\nQuestion:",
    "Trivia\n\nQ:",
    "Questions from the school quiz, geography and history:\n\n-",
    "Questions from the science quiz for children:\n\n-",
)


class BlankSlate:
    """Draws questions at `temperature`; `oversample` texts for each question wanted, since many are fragments.

    `opening` is put at the start of a chat model's user turn ("What", say); the question begins with it.
    """

    def __init__(
        self,
        *,
        temperature: Annotated[float, Gt(0)] = 1.0,
        top_p: Annotated[float, Gt(0)] = 0.95,
        max_tokens: Annotated[int, Ge(1)] = 32,
        oversample: Annotated[float, Ge(1)] = 1.5,
        frames: tuple[str, ...] = FRAMES,
        openings: tuple[str, ...] = ("", "What", "Who", "Which", "Where", "When", "How many", "In which"),
    ) -> None:
        self._sampling = Sampling(temperature, top_p=top_p, max_tokens=max_tokens, stop=("\n",))
        self._oversample = oversample
        self._frames, self._openings = frames, openings

    def ask(self, asking: Asking) -> list[Question]:
        """Return what was written, fragments and all: the scorers sort them out."""
        count = max(1, round(asking.n * self._oversample))
        rng = random.Random(asking.seed)
        if asking.backend.describe().chat:
            openings = [rng.choice(self._openings) for _ in range(count)]
            written = draw(asking, [(Message("user", o),) for o in openings], self._sampling, open_turn=True)
            texts = [opening + text for opening, (text,) in zip(openings, written, strict=True)]
        else:
            written = draw(asking, [rng.choice(self._frames) for _ in range(count)], self._sampling)
            texts = [text for (text,) in written]
        return [Question(question, "blank_slate") for question in map(first_question, texts) if question]


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = "the model asks with nothing before it but an empty turn or a text frame"
    return [Component("blank_slate", BlankSlate, doc=doc, paper="https://arxiv.org/abs/2406.08464")]
