"""Chat messages -> pieces of text, of which only the template's own may hold special tokens.

The template is rendered with marks in place of the messages' contents, and cut at the marks: a
content that says "<|im_end|>" stays the ten characters it is. A template therefore cannot trim or
inspect contents.
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
    except (
        Exception
    ) as error:  # a template is a program out of the model file: it may raise anything
        raise RequestError(f"the model's chat template refuses these messages: {error}") from error
    parts = MARKS.split(text)
    _all_there(messages, {int(i) for i in parts[1::2]})
    if open_turn:
        last = max(i for i in range(1, len(parts), 2) if int(parts[i]) == len(messages) - 1)
        parts = parts[: last + 1]
    pieces = [
        Piece(messages[int(p)].content, False) if i % 2 else Piece(p, True)
        for i, p in enumerate(parts)
    ]
    return [piece for piece in pieces if piece.text]


def tokens(
    pieces: Sequence[Piece],
    controls: Mapping[str, int],
    found_by: re.Pattern[str],
    plain: Callable[[str], list[int]],
) -> list[int]:
    """Return the tokens of pieces. `controls` are the special ones, which `found_by` (see `finder`)
    cuts out of a text; `plain` reads a text that holds none.

    Plain text never becomes a control token, only what is trusted does; plain text on both sides of
    a piece's edge is read as one, as it would be in the whole rendered prompt.
    """
    found: list[int] = []
    text = ""
    for piece in pieces:
        parts = found_by.split(piece.text) if piece.trusted else [piece.text]
        text += parts[0]
        for control, after in zip(parts[1::2], parts[2::2], strict=True):
            found += [*(plain(text) if text else []), controls[control]]
            text = after
    return [*found, *(plain(text) if text else [])]


def finder(controls: Iterable[str]) -> re.Pattern[str]:
    """Return what finds special tokens in a text, the longest first.

    There may be thousands: made once a vocabulary.
    """
    names = sorted((name for name in controls if name), key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else re.compile("(?!)")


def _all_there(messages: Sequence[Message], seen: set[int]) -> None:
    missing = [i for i in range(len(messages)) if i not in seen]
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
