"""The hooks: one for each kind of component, and one for commands. A hook lists components; these
do the work.

Each hook is called once, when plugins are loaded, before any model. It returns `Component`s that a
recipe picks by name. This is a whole plugin, in a file that a recipe names under `plugins:`

    from selfloop.plugin import Component, Verdict, hookimpl

    class Terse:
        def verify(self, claims, context):
            return [Verdict("terse", 1.0 if len(c.answer.tokens) < 4 else 0.3) for c in claims]

    @hookimpl
    def selfloop_detectors():
        return [Component("terse", Terse, doc="short answers are likelier true")]
"""

# mypy and pyright: the bodies are empty on purpose, pluggy only reads the signatures.
from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:  # the CLI's start-up must not pay for these
    import click

    from selfloop.protocols import Component

PROJECT = "selfloop"
# The version of the hooks, the protocols, the records and `selfloop.plugin`. It rises when a plugin
# that was written for the old version would break.
PLUGIN_API = 1
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """The specification: a plugin has functions of these names, decorated with `hookimpl`."""

    @hookspec
    def selfloop_backends(self) -> list[Component]:  # type: ignore[empty-body]
        """Return backends: ways to run a model (`protocols.Backend`).

        `gives` lists the capabilities of each.
        """

    @hookspec
    def selfloop_question_sources(self) -> list[Component]:  # type: ignore[empty-body]
        """Return question sources (`protocols.QuestionSource`)."""

    @hookspec
    def selfloop_scorers(self) -> list[Component]:  # type: ignore[empty-body]
        """Return scorers of questions (`protocols.Scorer`)."""

    @hookspec
    def selfloop_detectors(self) -> list[Component]:  # type: ignore[empty-body]
        """Return detectors (`protocols.Detector`); `needs` lists the capabilities they need."""

    @hookspec
    def selfloop_critics(self) -> list[Component]:  # type: ignore[empty-body]
        """Return critics of drafts (`protocols.Critic`)."""

    @hookspec
    def selfloop_few_shot(self) -> list[Component]:  # type: ignore[empty-body]
        """Return few-shot selectors (`protocols.FewShotSelector`)."""

    @hookspec
    def selfloop_tuners(self) -> list[Component]:  # type: ignore[empty-body]
        """Return tuners (`protocols.Tuner`)."""

    @hookspec
    def selfloop_observers(self) -> list[Component]:  # type: ignore[empty-body]
        """Return observers (`protocols.Observer`)."""

    @hookspec
    def selfloop_commands(self) -> list[click.Command]:  # type: ignore[empty-body]
        """Return click commands to add to `selfloop`; they keep heavy imports inside their
        functions.

        A command that is called like one of selfloop's own is left out, and `selfloop plugins` says
        so.
        """
