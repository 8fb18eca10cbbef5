"""The requirements on a question source."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from selfloop.protocols import AskContext
from selfloop.records import Question
from selfloop.testing.contexts import HOSTILE, ask_context
from selfloop.testing.contract import Contract, assert_ordered, assert_same, check_record
from selfloop.testing.scripted import WORLD, Limited

MAX_QUESTIONS = 200  # that are read of a generator, which may have no end
ASKED = ("What is the capital of Peru?", "Who was the first to write about Paris?")
# A script of replies without a question in them, to every prompt.
USELESS: Mapping[str, Sequence[str]] = {"": ["", "\n\n", "???", HOSTILE, "| | |", "1."]}


class QuestionSourceContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("ask",)

    def ask_context(self, script: Mapping[str, Sequence[str]] = WORLD) -> Iterator[AskContext]:
        """Yield its contexts in round 2 and, with nothing asked yet, in round 1.

        Both are of a base model and of a chat model.
        """
        for chat in (False, True):
            backend = Limited(self.component.needs, chat=chat, script=script)
            # the second first: in round 1 many sources have nothing to go by
            second_round = ask_context(backend, self.component.prompts, ASKED)
            yield second_round
            yield replace(second_round, round=1, history=ask_context().history)

    def ask(self, context: AskContext, source: Any = None) -> list[Question]:
        """Return the questions of `source`, or of a new one, as a run takes them."""
        results = (source or self.build()).ask(context)
        assert_ordered("ask()", results)
        questions = islice(results, MAX_QUESTIONS)
        return [check_record("ask()", question, Question) for question in questions]

    def test_it_gives_questions(self) -> None:
        """Return `Question`s with a text and their source."""
        for context in self.ask_context():
            for question in self.ask(context):
                assert question.text.strip(), "ask() gave a Question without text"
                assert question.source.strip(), (
                    f"the question {question.text!r:.60} does not say its `source`"
                )
                assert bool(question.variant) == bool(question.variant_of), (
                    f"{question.text!r:.60}: `variant` and `variant_of` go together, or its "
                    "answers cannot be compared"
                )
                _assert_pattern_compiles(question)

    def test_it_gives_questions_when_only_one_is_wanted(self) -> None:
        """Take any `ask_context.n`, 1 too. More or fewer questions are fine."""
        for context in self.ask_context():
            self.ask(replace(context, n=1))

    def test_the_same_is_asked_again(self) -> None:
        """Return the same questions in the same context, from a new source too.

        A resumed run relies on it.
        """
        for context in self.ask_context():
            source = self.build()
            first = self.ask(context, source)
            for second, when in (
                (self.ask(context), "from a new source"),
                (self.ask(context, source), "the second time"),
            ):
                assert len(first) == len(second), (
                    f"the same asking gave {len(first)} questions, and {len(second)} {when}"
                )
                assert_same(first, second, f"the same asking gives another question {when}")

    def test_a_model_may_write_nothing_that_is_any_good(self) -> None:
        """Accept any text of a model: nothing, fragments, control characters, braces."""
        for context in self.ask_context(USELESS):
            self.ask(context)


def _assert_pattern_compiles(question: Question) -> None:
    try:
        re.compile(question.gold_pattern)
    except re.error as error:
        raise AssertionError(
            f"{question.text!r:.60}: its gold_pattern is no regular expression: {error}"
        ) from None
