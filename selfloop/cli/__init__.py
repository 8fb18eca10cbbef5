"""The command line: one file a command, imported when it is called. Errors become one message and an exit code."""

import importlib
import logging
import os
import sys
from io import TextIOWrapper
from typing import Any

import click

from selfloop import __version__
from selfloop.errors import SelfloopError

# name -> what `selfloop --help` says; the module is selfloop.cli.<name>, its command is called `command`
COMMANDS = {
    "ask": 'Ask a model a question: its answer, how sure, or "I don\'t know".',
    "run": "Run a recipe in a new folder.",
    "resume": "Go on with a run that was stopped or killed.",
    "check": "Say what is wrong with a recipe, without loading a model.",
    "plan": "Say how long a recipe will take here, and how much memory, before anything runs.",
    "plugins": "List what is installed: components, options, where they come from.",
    "eval": "Measure a model, a recipe or a finished run by gold answers.",
    "rescore": "Judge a finished run again, with other verifiers or thresholds, without the model.",
    "score": "Say how likely answers that you have are true, going by a model.",
    "show": "Show a run: rounds, beliefs, what was declined, one question's history.",
}


class Commands(click.Group):
    """The commands above, and after them the ones of plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, ours first."""
        return [*COMMANDS, *sorted(set(_plugin_commands()) - set(COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command; only this imports its module."""
        if cmd_name in COMMANDS:
            command: click.Command = importlib.import_module(f"selfloop.cli.{cmd_name}").command
            return command
        return _plugin_commands().get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing our commands, so that `--help` is quick."""
        rows = list(COMMANDS.items())
        rows += [(n, c.get_short_help_str()) for n, c in sorted(_plugin_commands().items()) if n not in COMMANDS]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _plugin_commands() -> dict[str, click.Command]:
    from selfloop.manager import load

    return {str(command.name): command for _, command in reversed(load().commands)}  # the first of a name counts


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="selfloop")
def selfloop() -> None:
    """Let a language model find out what it knows."""


def main(args: list[str] | None = None) -> Any:
    """Run the command line; the exit code says what went wrong (see `selfloop/errors.py`)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character the terminal lacks must not end a run
    logging.basicConfig(format="selfloop: %(message)s", level=logging.WARNING)
    logging.getLogger("selfloop").setLevel(logging.INFO)  # what takes long is said: a model being fetched
    try:
        result = selfloop.main(args=args, prog_name="selfloop", standalone_mode=False)
    except SelfloopError as error:
        from selfloop.text import printable_block

        click.echo(f"selfloop: {printable_block(str(error))}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except MemoryError:
        click.echo(
            "selfloop: out of memory. Use a smaller model, or lower backend.n_ctx and backend.sequences.", err=True
        )
        code = 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("selfloop: stopped. What was finished is stored: `selfloop resume RUN` goes on.", err=True)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    else:
        code = result if isinstance(result, int) else 0
    sys.exit(code)
