"""What is asked -> the tokens of its prompt, and of what follows it."""

from selfloop_plugins._shared.prompt_text import decline_continuation as declined

from selfloop.errors import RequestError
from selfloop.records import Continuation, Request

from . import chat
from .tasks import Vocabulary, common


def pieces(model: Vocabulary, asked: Request | Continuation) -> list[chat.Piece]:
    """Return the pieces of a prompt.

    Raises RequestError for chat messages where the model has no template.
    """
    if isinstance(asked.prompt, str):
        return [chat.Piece(asked.prompt, False)]
    if not model.template:
        raise RequestError(
            f"{model.name} is a base model: it has no chat template. Use a text prompt"
        )
    special = {"bos_token": model.bos, "eos_token": model.eos}
    return chat.render(model.template, asked.prompt, open_turn=asked.open_turn, special=special)


def declining(model: Vocabulary, request: Request) -> int:
    """Return the token with which "I don't know" begins after a prompt."""
    _, tokens = split(model, declined(request.prompt, open_turn=request.open_turn))
    return tokens[0]


def split(model: Vocabulary, pair: Continuation) -> tuple[list[int], list[int]]:
    """Return the tokens before a continuation, at least one, and its own.

    Raises RequestError where there are none.
    """
    opening = pieces(model, pair)
    before = model.tokens(opening)
    if isinstance(pair.text, str):
        whole = model.tokens([*opening, chat.Piece(pair.text, False)])
    elif wrong := [token for token in pair.text if not 0 <= token < model.vocab_size]:
        raise RequestError(f"{wrong[0]} is no token of this model, which has {model.vocab_size}")
    else:
        whole = [*before, *pair.text]
    if not whole:
        raise RequestError(
            "there is no text, and this model has no token that begins one; write something"
        )
    same = max(1, common(before, whole))
    return whole[:same], whole[same:]
