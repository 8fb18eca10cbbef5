"""`balance`: no topic and no form takes more than its share of a round's questions."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Le
from selfloop_plugins._shared.patterns import pattern

from selfloop import Asking, Component, Question, Score, hookimpl
from selfloop.text.answers import content

Share = Annotated[float, Gt(0), Le(1)]
_WORD = pattern(r"[^\W_]+(?:['’.-][^\W_]+)*")
_WIDE = 8  # words of a form at most: a question may be of common words alone


class Balance:
    """1, or 0 with the reason for a question whose form or topic has its share of the round's
    questions already.

    A form is a question up to its first word with a meaning, names and numbers masked: "what is the
    capital", "who wrote", "where was _". Counted is what this round has and the batch, in order; a
    share is of what the round wants, or of `least` questions if that is more. List it last: what a
    later scorer drops has taken room here.
    """

    def __init__(
        self,
        *,
        form_share: Share = 0.2,
        topic_share: Share = 0.2,
        least: Annotated[int, Ge(1)] = 20,
    ) -> None:
        self._shares = {"form": form_share, "topic": topic_share}
        self._least = least

    def score(self, questions: Sequence[Question], asking: Asking) -> list[Score]:
        """Return 1 or 0 for each question."""
        now = [
            o.question
            for o in asking.past.outcomes
            if o.round == asking.round and o.decision != "dropped"
        ]
        had = Counter(key for question in now for key in _keys(question))
        wanted = max(self._least, len(now) + asking.n)
        room = {
            kind: max(1, math.floor(share * wanted + 1e-9)) for kind, share in self._shares.items()
        }
        scores = []
        for question in questions:
            keys = list(_keys(question))
            full = next(
                (
                    f"{kind} {name!r} has its share ({room[kind]})"
                    for kind, name in keys
                    if had[kind, name] >= room[kind]
                ),
                "",
            )
            scores.append(Score("balance", 0.0 if full else 1.0, full))
            had.update(() if full else keys)
        return scores


def _keys(question: Question) -> Iterator[tuple[str, str]]:
    """Yield the form and, if it has one, the topic of a question."""
    yield "form", form(question.text)
    if question.topic:
        yield "topic", question.topic.lower()


def form(text: str) -> str:
    """Return a question up to its first word with a meaning, names and numbers masked."""
    found = list[str]()
    for place, word in enumerate(_WORD.findall(text)[:_WIDE]):
        if place and (word[0].isupper() or word[0].isdigit()):
            return " ".join([*found, "_"])
        found.append(word.lower())
        if content(word):
            break
    return " ".join(found)


@hookimpl
def selfloop_scorers() -> list[Component]:
    """Offer the scorer."""
    return [
        Component(
            "balance", Balance, doc="0 for a form or topic that has its share of the round already"
        )
    ]
