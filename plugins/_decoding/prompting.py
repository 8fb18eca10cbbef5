"""A request or a continuation -> the tokens of its prompt, and of the text that follows it."""

from collections.abc import Sequence

from selfloop_plugins._shared.prompt_text import decline_continuation

from selfloop.errors import RequestError
from selfloop.records import Continuation, Request

from . import chat
from .tasks import Vocabulary, common_prefix


def pieces(model: Vocabulary, item: Request | Continuation) -> list[chat.Piece]:
    """Return the pieces of a prompt.

    Raises RequestError for chat messages where the model has no template.
    """
    if isinstance(item.prompt, str):
        return [chat.Piece(item.prompt, False)]
    if not model.template:
        raise RequestError(
            f"{model.name} is a base model: it has no chat template. Use a text prompt"
        )
    special = {"bos_token": model.bos, "eos_token": model.eos}
    return chat.render(model.template, item.prompt, open_turn=item.open_turn, special=special)


def decline_token(model: Vocabulary, request: Request) -> int:
    """Return the token with which "I don't know" begins after a request's prompt."""
    _, tokens = split(model, decline_continuation(request.prompt, open_turn=request.open_turn))
    return tokens[0]


def split(model: Vocabulary, pair: Continuation) -> tuple[list[int], list[int]]:
    """Return the tokens before a continuation, at least one, and its own.

    Raises RequestError where there are none.
    """
    opening = pieces(model, pair)
    before = model.tokens(opening)
    if isinstance(pair.text, str):
        whole = model.tokens([*opening, chat.Piece(pair.text, False)])
    else:
        _refuse_unknown(pair.text, model.vocab_size)
        whole = [*before, *pair.text]
    if not whole:
        raise RequestError(
            "there is no text, and this model has no token that begins one; write something"
        )
    # The prompt's last characters and the text's first may be one token, so the prompt is the part
    # that both have in common. It has a token at least: something must come before the rest.
    length = max(1, common_prefix(before, whole))
    return whole[:length], whole[length:]


def _refuse_unknown(tokens: Sequence[int], vocab_size: int) -> None:
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise RequestError(f"{token} is no token of this model, which has {vocab_size}")
