"""`scripted`: no model, replies from a script.

For trying recipes and testing plugins: quick, the same every time.
"""

import re
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from selfloop import Component, hookimpl
from selfloop.errors import RecipeError
from selfloop.protocols import Backend
from selfloop.storage.plain_json import parsed


def build(
    *,
    script: Path | None = None,
    chat: bool = False,
    context: Annotated[int, Ge(1)] = 100_000,
    delay: Annotated[float, Ge(0)] = 0.0,
) -> Backend:
    """Return a `selfloop.testing.ScriptedBackend`.

    `script` is a JSON file: {pattern: [reply, ...]}.
    """
    from selfloop.testing import WORLD, ScriptedBackend

    if script is None:
        return ScriptedBackend(WORLD, chat=chat, context=context, delay=delay)
    try:
        rules = parsed(script.read_text(encoding="utf-8"))
        for pattern in rules:
            re.compile(pattern)
        return ScriptedBackend(
            {str(pattern): list(map(str, replies)) for pattern, replies in rules.items()},
            chat=chat,
            context=context,
            delay=delay,
        )
    except (OSError, ValueError, AttributeError, TypeError, re.error) as error:
        raise RecipeError(
            f"backend.script: {script} is not a JSON file of {{pattern: [reply, ...]}}: {error}."
        ) from error


@hookimpl
def selfloop_backends() -> list[Component]:
    """Offer the backend."""
    gives = frozenset(
        {"logprobs", "entropies", "chat", "adapters", "loglikelihood", "hidden_states"}
    )
    return [
        Component(
            "scripted",
            build,
            doc="no model: replies from a script, for tests and dry runs",
            gives=gives,
        )
    ]
