"""What a question source must do."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import islice
from typing import Any

from selfloop.protocols import Asking
from selfloop.records import Question
from selfloop.testing.contract import Contract, checked, same
from selfloop.testing.scripted import WORLD, Limited
from selfloop.testing.told import HOSTILE, asking

MOST = 200  # of a generator that has no end
ASKED = ("What is the capital of Peru?", "Who was the first to write about Paris?")
USELESS: Mapping[str, Sequence[str]] = {"": ["", "\n\n", "???", HOSTILE, "| | |", "1."]}


class QuestionSourceContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("ask",)

    def asking(self, script: Mapping[str, Sequence[str]] = WORLD) -> Iterator[Asking]:
        """Yield what it is told in round 2 and, with nothing asked yet, in round 1: of a base and of a chat model."""
        for chat in (False, True):
            told = asking(
                Limited(self.component.needs, chat=chat, script=script),
                self.component.prompts,
                ASKED,
            )
            yield told
            yield replace(told, round=1, past=asking().past)

    def ask(self, told: Asking, source: Any = None) -> list[Question]:
        """Return the questions of a new source, or the one given, as a run would take them."""
        found = (source or self.build()).ask(told)
        ordered = isinstance(found, Iterable) and not isinstance(found, str | AbstractSet | Mapping)
        assert ordered, f"ask() gave {found!r:.60}, not a list"
        return [checked("ask()", question, Question) for question in islice(found, MOST)]

    def test_it_gives_questions(self) -> None:
        """Return `Question`s with a text and where they come from."""
        for told in self.asking():
            for question in self.ask(told):
                assert question.text.strip(), "ask() gave a Question without text"
                assert question.source.strip(), (
                    f"the question {question.text!r:.60} does not say its `source`"
                )
                assert bool(question.variant) == bool(question.variant_of), (
                    f"{question.text!r:.60}: `variant` and `variant_of` go together, or its "
                    "answers cannot be compared"
                )
                _compiles(question)

    def test_it_gives_questions_when_only_one_is_wanted(self) -> None:
        """Take `asking.n` as it comes, 1 too; more or fewer is fine."""
        for told in self.asking():
            self.ask(replace(told, n=1))

    def test_the_same_is_asked_again(self) -> None:
        """Return the same questions for the same `asking`, from a new source too: resume rests on it."""
        for told in self.asking():
            source = self.build()
            first = self.ask(told, source)
            for other, why in (
                (self.ask(told), "from a new source"),
                (self.ask(told, source), "the second time"),
            ):
                assert len(first) == len(other), (
                    f"the same asking gave {len(first)} questions, and {len(other)} {why}"
                )
                same(first, other, f"the same asking gives another question {why}")

    def test_a_model_may_write_nothing_that_is_any_good(self) -> None:
        """Take what a model may write: nothing, fragments, control characters, braces."""
        for told in self.asking(USELESS):
            self.ask(told)


def _compiles(question: Question) -> None:
    try:
        re.compile(question.gold_pattern)
    except re.error as error:
        raise AssertionError(
            f"{question.text!r:.60}: its gold_pattern is no regular expression: {error}"
        ) from None
