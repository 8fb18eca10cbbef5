"""The requirements on a few-shot selector."""

from collections.abc import Sequence
from typing import Any

from selfloop.config.prompts import Prompt
from selfloop.protocols import VerifyContext
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


class FewShotContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("build_prompts",)

    def build_prompts(
        self, questions: Sequence[str], verify_context: VerifyContext, selector: Any = None
    ) -> list[Prompt]:
        """Return the prompts of `selector`, or of a new one, as a run takes them."""
        method = (selector or self.build()).build_prompts
        prompts = as_list("build_prompts()", call_with_tuple(method, questions, verify_context))
        assert len(prompts) == len(questions), (
            f"build_prompts() gave {len(prompts)} prompts for {len(questions)} questions"
        )
        for prompt in prompts:
            assert _is_prompt(prompt), (
                f"build_prompts() gave {prompt!r:.60}, which is neither text nor a tuple of Message"
            )
        return prompts

    def test_one_prompt_a_question(self) -> None:
        """Return as many prompts as questions, also for none; each has its question verbatim."""
        for verify_context in self.contexts():
            assert self.build_prompts([], verify_context) == []
            for question, prompt in zip(
                QUESTIONS, self.build_prompts(QUESTIONS, verify_context), strict=True
            ):
                text = prompt_text(prompt)
                assert question in text, (
                    f"the prompt for {question!r} does not have it: {text!r:.200}"
                )

    def test_questions_are_shown_apart(self) -> None:
        """Return the same prompt for a question alone as among others, in their order."""
        why = "a question's prompt depends on the questions beside it, or on their order"
        for verify_context in self.contexts():
            alone = [self.build_prompts([question], verify_context)[0] for question in QUESTIONS]
            assert_same(alone, self.build_prompts(QUESTIONS, verify_context), why)

    def test_it_keeps_nothing_between_calls(self) -> None:
        """Return the same when asked again: a resumed run asks a new one, and must get it."""
        why = "the same questions get another prompt the second time"
        for verify_context in self.contexts():
            selector = self.build()
            first = self.build_prompts(QUESTIONS, verify_context, selector)
            assert_same(first, self.build_prompts(QUESTIONS, verify_context, selector), why)


def _is_prompt(prompt: Any) -> bool:
    if isinstance(prompt, tuple):
        return bool(prompt) and all(isinstance(message, Message) for message in prompt)
    return isinstance(prompt, str)
