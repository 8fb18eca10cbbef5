"""What a demonstrator must do."""

from collections.abc import Sequence
from typing import Any

from selfloop.config.prompts import Prompt
from selfloop.protocols import Judging
from selfloop.records import Message
from selfloop.testing.contract import Contract, called, listed, same
from selfloop.testing.told import CLAIMS

QUESTIONS = tuple(claim.question.text for claim in CLAIMS)


class DemonstratorContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("show",)

    def show(
        self, questions: Sequence[str], told: Judging, demonstrator: Any = None
    ) -> list[Prompt]:
        """Return the prompts of a new demonstrator, or the one given, as a run would take them."""
        found = listed("show()", called((demonstrator or self.build()).show, questions, told))
        assert len(found) == len(questions), (
            f"show() gave {len(found)} prompts for {len(questions)} questions"
        )
        for prompt in found:
            assert _is_prompt(prompt), (
                f"show() gave {prompt!r:.60}, which is neither text nor a tuple of Message"
            )
        return found

    def test_one_prompt_a_question(self) -> None:
        """Return as many prompts as questions, also for none, each with its question as it stands."""
        for told in self.told():
            assert self.show([], told) == []
            for question, prompt in zip(QUESTIONS, self.show(QUESTIONS, told), strict=True):
                whole = (
                    prompt
                    if isinstance(prompt, str)
                    else "".join(message.content for message in prompt)
                )
                assert question in whole, (
                    f"the prompt for {question!r} does not have it: {whole!r:.200}"
                )

    def test_questions_are_shown_apart(self) -> None:
        """Return the same prompt for a question alone as among others, in their order."""
        for told in self.told():
            alone = [self.show([question], told)[0] for question in QUESTIONS]
            among = self.show(QUESTIONS, told)
            same(
                alone,
                among,
                "a question's prompt depends on the questions beside it, or on their order",
            )

    def test_it_keeps_nothing_between_calls(self) -> None:
        """Return the same when asked again: a resumed run asks a new demonstrator, and must get the same."""
        for told in self.told():
            demonstrator = self.build()
            first = self.show(QUESTIONS, told, demonstrator)
            again = self.show(QUESTIONS, told, demonstrator)
            same(first, again, "the same questions get another prompt the second time")


def _is_prompt(prompt: Any) -> bool:
    if isinstance(prompt, tuple):
        return bool(prompt) and all(isinstance(one, Message) for one in prompt)
    return isinstance(prompt, str)
