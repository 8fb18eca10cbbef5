"""Chat messages -> pieces of text, of which only the template's own may hold special tokens.

A message may hold any text, also one that looks like a control token: it must not end its own turn
and begin another's. So the template is rendered with marks in place of the messages' contents, and
cut at the marks. A content that says "<|im_end|>" stays the ten characters it is. A template
therefore cannot trim or inspect contents.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from selfloop.errors import RequestError
from selfloop.records import Message

# Templates that name today's date would make the same request give another answer tomorrow.
TODAY = datetime(2024, 7, 26)
# of a message's number, in private-use characters, which no template has of its own
MARK = "\ue000{}\ue001"
MARKS = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a prompt; special tokens are read in it only if it is the template's own."""

    text: str
    trusted: bool


def render(
    template: str,
    messages: Sequence[Message],
    *,
    open_turn: bool = False,
    special: dict[str, str] | None = None,
) -> list[Piece]:
    """Return the pieces of the prompt, in order. `special` holds `bos_token` and `eos_token` for
    the template.

    With `open_turn` it ends right after the last message's content, else with the opening of the
    answer. Raises RequestError for no messages, and for messages which the template refuses or
    leaves out.
    """
    if not messages:
        raise RequestError("a chat prompt needs at least one message")
    marked = [{"role": m.role, "content": MARK.format(i)} for i, m in enumerate(messages)]
    try:
        text = _compile(template).render(
            messages=marked, add_generation_prompt=not open_turn, **(special or {})
        )
    except Exception as error:
        # a template is a program out of the model file: it may raise anything
        raise RequestError(f"the model's chat template refuses these messages: {error}") from error
    # the template's own text at even positions, numbers of messages at odd ones
    parts = MARKS.split(text)
    _refuse_left_out(messages, {int(number) for number in parts[1::2]})
    if open_turn:
        parts = parts[: _last_position(parts, len(messages) - 1) + 1]
    pieces = []
    for position, part in enumerate(parts):
        is_content = position % 2 == 1
        pieces.append(
            Piece(messages[int(part)].content, False) if is_content else Piece(part, True)
        )
    return [piece for piece in pieces if piece.text]


def _last_position(parts: Sequence[str], number: int) -> int:
    """Return where a message's content stands last: a template may repeat it."""
    return max(i for i in range(1, len(parts), 2) if int(parts[i]) == number)


def tokens(
    pieces: Sequence[Piece],
    controls: Mapping[str, int],
    pattern: re.Pattern[str],
    tokenize: Callable[[str], list[int]],
) -> list[int]:
    """Return the tokens of pieces.

    `controls` are the special tokens, which `pattern` (see `control_pattern`) cuts out of a text;
    `tokenize` reads a text without any. Only trusted text becomes a control token. Plain text on
    both sides of a piece's edge is read as one, as it would be in the whole rendered prompt.
    """
    tokens: list[int] = []
    text = ""  # plain, since the last control token
    for piece in pieces:
        # plain text at even positions, control tokens at odd ones
        parts = pattern.split(piece.text) if piece.trusted else [piece.text]
        text += parts[0]
        for control, after in zip(parts[1::2], parts[2::2], strict=True):
            if text:
                tokens += tokenize(text)
            tokens.append(controls[control])
            text = after
    if text:
        tokens += tokenize(text)
    return tokens


def control_pattern(controls: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of special tokens; of two that begin alike the longer one matches.

    There may be thousands of tokens, so a vocabulary makes it once.
    """
    names = sorted((name for name in controls if name), key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else re.compile("(?!)")


def _refuse_left_out(messages: Sequence[Message], rendered: set[int]) -> None:
    """Raise RequestError if the template left out the content of a message."""
    missing = [i for i in range(len(messages)) if i not in rendered]
    if missing:
        roles = ", ".join(f"{i + 1} ({messages[i].role})" for i in missing)
        raise RequestError(
            f"the model's chat template leaves out message {roles}; drop it or merge it with "
            "another"
        )


@lru_cache(maxsize=8)
def _compile(template: str) -> Template:
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    env.globals.update(raise_exception=_raise, strftime_now=TODAY.strftime)
    return env.from_string(template)


def _raise(message: Any) -> NoReturn:
    raise TemplateError(str(message))
