"""The command line: one file a command, imported when it is called. Errors become one message and an exit code."""

import importlib
import logging
import sys
from io import TextIOWrapper
from typing import Any, TextIO

import click
from click.shell_completion import CompletionItem

from selfloop import __version__, progress
from selfloop.errors import SelfloopError, StoreError

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
    "completion": "Let the Tab key complete commands, runs, recipes and components.",
}
WIDEST = 120  # characters of a plugin's command in the list; the rest stands in its own help


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
        with formatter.section("Commands"):
            formatter.write_dl(_listed())

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a name without importing our commands, so that the Tab key is quick."""
        found = [CompletionItem(name, help=what) for name, what in _listed() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


def _listed() -> list[tuple[str, str]]:
    """Return each command and what it does, ours first."""
    added = sorted((n, c.get_short_help_str(WIDEST)) for n, c in _plugin_commands().items() if n not in COMMANDS)
    return [*COMMANDS.items(), *added]


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at the time: a live picture takes it over, so as to draw itself below the line."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Return the standard error output."""
        return sys.stderr


def _plugin_commands() -> dict[str, click.Command]:
    from selfloop.manager import load

    return {str(command.name): command for _, command in reversed(load().commands)}  # the first of a name counts


def _line_for(stream: TextIO) -> progress.Show:
    """Return what writes a line about long work to `stream`, whoever takes `sys.stderr` over meanwhile."""

    def show(line: str) -> None:
        stream.write(f"selfloop: {line}\n")
        stream.flush()

    return show


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="selfloop")
def selfloop() -> None:
    """Let a language model find out what it knows.

    \b
    To begin:
      selfloop run quickstart      a first run, with a model that is fetched once
      selfloop recipes             what else there is to run
      selfloop new recipe          a recipe of your own
    """


def main(args: list[str] | None = None) -> Any:
    """Run the command line; the exit code says what went wrong (see `selfloop/errors.py`)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character the terminal lacks must not end a run
    logging.basicConfig(format="selfloop: %(message)s", level=logging.WARNING, handlers=[_Stderr()])
    logging.getLogger("selfloop").setLevel(logging.INFO)  # what takes long is said: a model being fetched
    try:
        with progress.shown_by(_line_for(sys.stderr)):
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
        click.echo("selfloop: stopped. It leaves no run that could be resumed.", err=True)
        code = 130
    except OSError as error:  # a name too long, a folder that may not be looked into, no room for what is printed
        from selfloop.text import printable

        where = f"{printable(str(error.filename))}: " if error.filename else ""
        advice = "Give another file or folder, or see who may use this one and how much room there is."
        click.echo(f"selfloop: {where}{error.strerror or error}. {advice}", err=True)
        code = StoreError.exit_code
    else:
        code = result if isinstance(result, int) else 0
    sys.exit(code)
