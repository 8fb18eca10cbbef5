"""Text that components put into prompts: safe lines, and the text that declines."""

from selfloop.config.prompts import Prompt
from selfloop.records import Continuation
from selfloop.text.answers import UNKNOWN


def one_line(text: str) -> str:
    """Return a text as one line, so that it cannot end its line of a prompt and begin another."""
    return " ".join(text.split())


def decline_continuation(prompt: Prompt, *, open_turn: bool) -> Continuation:
    """Return "I don't know" as the continuation of a prompt.

    It begins with a space where the model goes on with a line, and without one where the model
    begins a new turn or line.
    """
    needs_space = not prompt[-1:].isspace() if isinstance(prompt, str) else open_turn
    return Continuation(prompt, f" {UNKNOWN}" if needs_space else UNKNOWN, open_turn)
