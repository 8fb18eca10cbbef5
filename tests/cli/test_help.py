"""Help of each command: what it does, its arguments, and an example that can be typed as it is."""

import inspect
import re
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import Selfloop

from selfloop.cli import COMMANDS, selfloop
from selfloop.testing import CommandContract, examples

TOP = click.Context(selfloop)
NAMES = selfloop.list_commands(TOP)
HELD = [name for name in dir(CommandContract) if name.startswith("test_")]


def contract(name: str) -> Any:
    """Return the contract of commands on one of selfloop's own."""
    found = selfloop.get_command(TOP, name)
    assert found is not None
    return type("Held", (CommandContract,), {"command": found})()


@pytest.mark.parametrize("what", HELD)
@pytest.mark.parametrize("name", NAMES)
def test_every_command_keeps_the_contract(name: str, what: str, work: Path, tmp_path: Path) -> None:
    if what == "test_it_says_what_it_does" and name in COMMANDS:
        return  # that a plugin's name must be another's
    method = getattr(contract(name), what)
    method(**({"tmp_path": tmp_path} if inspect.signature(method).parameters else {}))


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_comes_out_and_explains_its_arguments(name: str) -> None:
    for full, command in contract(name).leaves():
        text = command.get_help(
            click.Context(command, info_name=full, max_content_width=200, terminal_width=200)
        )
        for argument in (one for one in command.params if isinstance(one, click.Argument)):
            for word in re.findall(r"[A-Z]{3,}", argument.make_metavar(click.Context(command))):
                assert len(re.findall(rf"\b{word}S?\b", text)) > 1, (
                    f"{full} does not say what {word} is"
                )


def test_the_list_says_of_every_command_what_it_does(selfloop: Selfloop) -> None:
    said = selfloop("--help")
    assert said.code == 0
    assert "..." not in said.out.split("Commands:")[1], "a sentence is cut off"
    for line in ("selfloop run quickstart", "selfloop recipes", "selfloop new recipe"):
        assert line in said.out


def test_the_examples_are_found() -> None:
    """A test of these tests: each must be able to fail."""
    assert len(examples(contract("run").command)) == 2
    assert examples(click.Command("run", help="Run.\n\nExample: selfloop run")) == []
