"""The requirements on a command, and the examples in its help."""

import re
import shlex
from collections.abc import Iterator
from contextlib import chdir
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, ClassVar

import click

from selfloop.errors import SelfloopError

# Arguments that a user may type by mistake, and an escape sequence that must not reach a terminal.
ODD_VALUES = ("nowhere", "", "\x1b[31mred", "no/such/folder", "{x}%s")
# Words of a shell that end the part of an example line that click would see.
SHELL_OPERATORS = (">", "|", "&&")
_NAME = re.compile(r"[a-z][a-z0-9_-]*")


def examples(command: click.Command, name: str = "") -> list[str]:
    """Return the example lines of a command's help, `selfloop NAME ...`.

    In the docstring of the command a line of `\\b` must stand before them, or click joins them.
    """
    # wide enough that no example wraps
    context = click.Context(
        command, info_name=command.name, terminal_width=200, max_content_width=200
    )
    begin = re.escape(f"selfloop {name or command.name}")
    example = rf"^\s+(?:\$ )?({begin}(?: .*)?)$"
    return re.findall(example, command.get_help(context), re.MULTILINE)


def parse(command: click.Command, line: str, words: int = 2) -> None:
    """Parse an example line as click would, less its first words `selfloop NAME`.

    Raises click.ClickException.
    """
    all_words = shlex.split(line, comments=True)
    before_operator = takewhile(lambda word: word not in SHELL_OPERATORS, all_words)
    command.make_context(str(command.name), list(before_operator)[words:])


class CommandContract:
    """Subclass, set `command`, run pytest. The same holds for each command of a group."""

    command: ClassVar[click.Command]
    parents: ClassVar[str] = ""

    def leaves(self) -> Iterator[tuple[str, click.Command]]:
        """Yield the command, or each command of the group, with its full name."""
        yield from _leaves(self.command, self.parents)

    def test_it_says_what_it_does(self) -> None:
        """Have a name of its own in small letters, and help."""
        from selfloop.cli import COMMANDS

        name = str(self.command.name)
        assert _NAME.fullmatch(name), (
            f"the command's name {name!r} is not of small letters, digits, '-' and '_'"
        )
        assert name not in COMMANDS, (
            f"selfloop has a command {name} of its own, which hides this one"
        )
        for full, command in self.leaves():
            assert (command.help or "").strip(), f"{full} has no help: write a docstring"

    def test_every_option_says_what_it_is_for(self) -> None:
        """Have help for each option."""
        for full, command in self.leaves():
            for option in command.params:
                if isinstance(option, click.Option) and not option.hidden:
                    assert (option.help or "").strip(), f"{full} has no help for {option.opts[-1]}"

    def test_its_help_has_an_example(self) -> None:
        """Show in the help a line `selfloop NAME ...` that can be typed as it is."""
        for full, command in self.leaves():
            lines = examples(command, full)
            assert lines, (
                f"the help of {full} has no example: a line that begins with `selfloop {full}`"
            )
            for line in lines:
                try:
                    parse(command, line, words=1 + len(full.split()))
                except click.ClickException as error:
                    raise AssertionError(
                        f"the example {line!r} is refused: {error.format_message()}"
                    ) from None

    def test_help_is_shown(self, tmp_path: Path) -> None:
        """Exit with 0 and leave nothing behind."""
        for full, command in self.leaves():
            assert self._exit(tmp_path, command, ["--help"]) == 0, (
                f"`{full} --help` does not exit with 0"
            )
        assert not list(tmp_path.iterdir()), "the help leaves files behind"

    def test_wrong_use_is_one_message(self, tmp_path: Path) -> None:
        """Report a mistake by a click or selfloop error, never a traceback.

        Print nothing that a terminal acts on.
        """
        for full, command in self.leaves():
            assert self._exit(tmp_path, command, ["--no-such-option"]) == 2, (
                f"{full} takes any option"
            )
            required = [parameter for parameter in command.params if parameter.required]
            if not required:
                continue
            for value in ODD_VALUES:
                arguments = [_argument_words(parameter, value) for parameter in required]
                self._exit(tmp_path, command, list(chain.from_iterable(arguments)))

    def _exit(self, home: Path, command: click.Command, args: list[str]) -> int:
        """Run the command in an empty folder; return its exit code."""
        from click.testing import CliRunner

        # the empty folder shows the files that the command leaves behind
        with chdir(home):
            result = CliRunner().invoke(command, args)
        line, error = " ".join([str(command.name), *map(repr, args)]), result.exception
        if error and not isinstance(error, SystemExit | SelfloopError | click.ClickException):
            raise AssertionError(
                f"`{line}` ends in a traceback: {type(error).__name__}: {error}"
            ) from error
        # an escape sequence of the arguments must not reach the terminal
        assert "\x1b" not in result.output, (
            f"`{line}` prints its arguments as they are; use selfloop.text.display.printable"
        )
        return error.exit_code if isinstance(error, SelfloopError) else result.exit_code


def _leaves(command: click.Command, before: str) -> Iterator[tuple[str, click.Command]]:
    full = f"{before} {command.name}".strip()
    if not isinstance(command, click.Group):
        yield full, command
        return
    for name in command.list_commands(click.Context(command)):
        subcommand = command.get_command(click.Context(command), name)
        assert subcommand is not None
        yield from _leaves(subcommand, full)


def _argument_words(parameter: click.Parameter, value: str) -> list[str]:
    """Return the words that set a required parameter to `value`.

    A choice gets its first value, and a number 1.
    """
    kind: Any = parameter.type
    # values that pass the first check of click, so that the command itself sees them
    if isinstance(kind, click.Choice):
        value = str(kind.choices[0])
    elif isinstance(kind, click.types.IntParamType):
        value = "1"
    return [parameter.opts[0], value] if isinstance(parameter, click.Option) else [value]
