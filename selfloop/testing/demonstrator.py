"""The requirements on a demonstrator."""

from collections.abc import Sequence
from typing import Any

from selfloop.config.prompts import Prompt
from selfloop.protocols import Judging
from selfloop.records import Message
from selfloop.testing.contexts import CLAIMS
from selfloop.testing.contract import (
    Contract,
    as_list,
    assert_same,
    call_with_tuple,
    prompt_text,
)

QUESTIONS = tuple(claim.question.text for claim in CLAIMS)


class DemonstratorContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("show",)

    def show(
        self, questions: Sequence[str], judging: Judging, demonstrator: Any = None
    ) -> list[Prompt]:
        """Return the prompts of `demonstrator`, or of a new one, as a run takes them."""
        method = (demonstrator or self.build()).show
        prompts = as_list("show()", call_with_tuple(method, questions, judging))
        assert len(prompts) == len(questions), (
            f"show() gave {len(prompts)} prompts for {len(questions)} questions"
        )
        for prompt in prompts:
            assert _is_prompt(prompt), (
                f"show() gave {prompt!r:.60}, which is neither text nor a tuple of Message"
            )
        return prompts

    def test_one_prompt_a_question(self) -> None:
        """Return as many prompts as questions, also for none; each has its question verbatim."""
        for judging in self.contexts():
            assert self.show([], judging) == []
            for question, prompt in zip(QUESTIONS, self.show(QUESTIONS, judging), strict=True):
                text = prompt_text(prompt)
                assert question in text, (
                    f"the prompt for {question!r} does not have it: {text!r:.200}"
                )

    def test_questions_are_shown_apart(self) -> None:
        """Return the same prompt for a question alone as among others, in their order."""
        why = "a question's prompt depends on the questions beside it, or on their order"
        for judging in self.contexts():
            alone = [self.show([question], judging)[0] for question in QUESTIONS]
            assert_same(alone, self.show(QUESTIONS, judging), why)

    def test_it_keeps_nothing_between_calls(self) -> None:
        """Return the same when asked again: a resumed run asks a new one, and must get it."""
        why = "the same questions get another prompt the second time"
        for judging in self.contexts():
            demonstrator = self.build()
            first = self.show(QUESTIONS, judging, demonstrator)
            assert_same(first, self.show(QUESTIONS, judging, demonstrator), why)


def _is_prompt(prompt: Any) -> bool:
    if isinstance(prompt, tuple):
        return bool(prompt) and all(isinstance(message, Message) for message in prompt)
    return isinstance(prompt, str)
