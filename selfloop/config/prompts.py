"""Prompts are plain files. Filling one in is a single pass: a text of the model is never expanded
again.

`NAME.chat.txt` serves models with a chat template: lines `=== system`, `=== user` and `===
assistant` begin its messages, and a last message of the assistant is left open, so that the model
goes on with it. `NAME.base.txt` serves base models: the whole file is the text. `{word}` is filled
in.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from selfloop.errors import PluginError, RecipeError, did_you_mean
from selfloop.records import Message

Prompt = str | tuple[Message, ...]

_FIELD = re.compile(r"\{(\w+)\}")
_TURN = re.compile(r"^=== (system|user|assistant)\n", re.MULTILINE)
BUILT_IN_FOLDER = Path(__file__).parent.parent / "prompts"


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return `text` with each `{word}` replaced, in one pass; unknown words stay as they are."""
    return _FIELD.sub(lambda match: values.get(match[1], match[0]), text)


def messages(text: str, values: Mapping[str, str]) -> tuple[Message, ...]:
    """Return the messages of a chat prompt. A text without role lines is one message of the user.

    It is split first and filled in afterwards, so that no value can begin a message.
    """
    # [text before the first role line, role, body, role, body, ...]
    parts = _TURN.split(text)
    if len(parts) == 1:
        return (Message("user", fill(text.strip(), values)),)
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return tuple(Message(role, fill(body.strip(), values)) for role, body in turns)  # type: ignore[arg-type]


def is_open(prompt: Prompt) -> bool:
    """Return whether the prompt ends with a message of the model, which it then goes on with."""
    return not isinstance(prompt, str) and prompt[-1].role == "assistant"


def _refuse_other_fields(path: Path, text: str, expected: Collection[str]) -> None:
    """Raise RecipeError unless `text` has exactly the `expected` fields, in its messages."""
    fields = set(_FIELD.findall(text))
    for field in sorted(fields - set(expected)):
        available = ", ".join(f"{{{name}}}" for name in sorted(expected)) or "nothing"
        raise RecipeError(f"{path} uses {{{field}}}, but this prompt is given {available}.")
    missing = " and ".join(f"{{{name}}}" for name in sorted(set(expected) - fields))
    if missing:
        raise RecipeError(
            f"{path} lacks {missing}, so the model would never see it. Write it where it belongs."
        )
    before, *turns = _TURN.split(text)
    if turns and before.strip():
        raise RecipeError(
            f"{path} has text before its first line `=== {turns[0]}`, which belongs to no "
            "message. Put it below one."
        )


def continued(prompt: Prompt, text: str) -> Prompt:
    """Return a prompt after which the model has already written `text`, and goes on with it."""
    if isinstance(prompt, str):
        return prompt + text
    *before, last = prompt
    if last.role == "assistant":
        return (*before, Message("assistant", last.content + text))
    return (*prompt, Message("assistant", text))


class Prompts:
    """The prompts of one run: built-in ones, and those of components; a recipe replaces any."""

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        self.rendered: set[str] = set()  # the names of those that were asked for
        self._texts: dict[str, str] = {}  # by name and form: `answer.chat`
        for folder in (BUILT_IN_FOLDER, *folders):
            for path in sorted(folder.glob("*.txt")):
                self._texts[path.stem] = path.read_text(encoding="utf-8")

    @property
    def names(self) -> list[str]:
        """Return the names a recipe can replace."""
        return sorted({name.rpartition(".")[0] for name in self._texts})

    def replace(self, name: str, path: Path) -> None:
        """Use the file `path` for `name`, for chat and base models alike.

        Raises RecipeError for an unknown name, a file that cannot be read, and other fields.
        """
        variants = [key for key in (f"{name}.chat", f"{name}.base") if key in self._texts]
        if not variants:
            raise RecipeError(
                f"no prompt named {name!r}.{did_you_mean(name, self.names)} Known: "
                f"{', '.join(self.names)}."
            )
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read {path}: {error}. Give a UTF-8 text file.") from error
        old_texts = "".join(self._texts[key] for key in variants)
        _refuse_other_fields(path, text, set(_FIELD.findall(old_texts)))
        self._texts |= dict.fromkeys(variants, text)

    def render(self, name: str, *, chat: bool, **values: str) -> Prompt:
        """Return the prompt `name` filled in: messages for a chat model, text for a base model.

        Raises PluginError where a field of the prompt has no value: the model would be shown its
        bare name.
        """
        self.rendered.add(name)
        text = self._texts[f"{name}.chat"] if chat else self._texts[f"{name}.base"].rstrip("\n")
        for field in _FIELD.findall(text):
            if field not in values:
                raise PluginError(
                    f"the prompt {name} uses {{{field}}}, which its component does not give."
                )
        return messages(text, values) if chat else fill(text, values)
