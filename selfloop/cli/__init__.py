"""The command line: one file a command, imported when it is called.

Errors become one message and an exit code.
"""

import importlib
import logging
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

import click
from click.shell_completion import CompletionItem

from selfloop import __version__, progress
from selfloop.errors import PluginError, SelfloopError, StoreError

if TYPE_CHECKING:
    from selfloop.registry.manager import Catalog

# name -> its line in `selfloop --help`; the module is selfloop.cli.<name>, its command `command`
COMMANDS = {
    "ask": "Ask a model questions; print its answers and how confident it is.",
    "run": "Run a recipe in a new folder.",
    "resume": "Continue a run that was stopped or killed.",
    "check": "Report every mistake in a recipe, without loading a model.",
    "plan": "Estimate how long a recipe takes here, and how much memory.",
    "plugins": "List the installed components and their options.",
    "eval": "Measure a model, a recipe or a finished run by gold answers.",
    "rescore": "Judge a finished run again, with other detectors or thresholds.",
    "score": "Score existing answers for likely correctness.",
    "show": "Show a run: its beliefs, its declined questions, the history of one question.",
    "completion": "Let the Tab key complete commands, runs, recipes and components.",
}
LONGEST = 2000  # characters of a line of a message, which may hold a name of any length
MAX_SUMMARY = 120  # characters of a plugin's command in the list; its own help has the rest


class Commands(click.Group):
    """The commands above, and after them the ones of plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, ours first."""
        return [*COMMANDS, *sorted(_plugin_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command; only this imports its module."""
        # Ours is looked up by name alone: no plugin is imported for it.
        if cmd_name in COMMANDS:
            command: click.Command = importlib.import_module(f"selfloop.cli.{cmd_name}").command
            return command
        return _plugin_commands().get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing our commands, so that `--help` is quick."""
        commands, left_out = commands_of_plugins()
        with formatter.section("Commands"):
            formatter.write_dl(_listed(commands))
        for name, reason in left_out.items():
            click.echo(f"warning: {name} is left out: {reason}", err=True)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that is a bug of a plugin's command names its package."""
        try:
            return super().invoke(ctx)
        except (
            SelfloopError,
            click.ClickException,
            click.exceptions.Exit,
            click.Abort,
            OSError,
            MemoryError,
        ):
            raise
        except (KeyboardInterrupt, SystemExit):
            raise  # Ctrl-C, and a command that gives its own exit code
        except BaseException as error:
            owner = _owner(str(ctx.invoked_subcommand))
            if not owner:
                raise
            from selfloop.guard import safe_message

            broken = f"the command {ctx.invoked_subcommand} of the plugin {owner} is broken"
            raise PluginError(f"{broken}: {type(error).__name__}: {safe_message(error)}") from error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a name without importing our commands, so that the Tab key is quick."""
        items = [
            CompletionItem(name, help=summary)
            for name, summary in _listed(_plugin_commands())
            if name.startswith(incomplete)
        ]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]


def _listed(commands: dict[str, click.Command]) -> list[tuple[str, str]]:
    """Return each command and its summary, ours first."""
    of_plugins = [(name, short_help(command, MAX_SUMMARY)) for name, command in commands.items()]
    return [*COMMANDS.items(), *sorted(of_plugins)]


def short_help(command: click.Command, limit: int) -> str:
    """Return a command's own summary; an empty string where it raises."""
    try:
        return command.get_short_help_str(limit)
    except Exception:  # noqa: BLE001  no plugin's command may break `selfloop --help`
        return ""


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to the `sys.stderr` of the time of writing.

    A live display replaces `sys.stderr`, so that it can draw itself below each line.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Return the standard error output."""
        return sys.stderr


def commands_of_plugins(
    catalog: "Catalog | None" = None,
) -> tuple[dict[str, click.Command], dict[str, str]]:
    """Return the commands of plugins by name, and the reasons for those that are left out.

    A command is left out if its name is taken.
    """
    from selfloop.registry.manager import load

    return (catalog or load(commands_only=True)).commands_beside(COMMANDS)


def _plugin_commands() -> dict[str, click.Command]:
    return commands_of_plugins()[0]


def _owner(name: str) -> str:
    """Return the plugin and package of a command; an empty string for selfloop's own."""
    from selfloop.registry.hookspecs import PROJECT
    from selfloop.registry.manager import load

    # Only called once a command has raised, so loading all plugins again costs nothing.
    catalog = load()
    command = commands_of_plugins(catalog)[0].get(name)
    plugin = next((plugin for plugin, offered in catalog.commands if offered is command), "")
    package = catalog.plugins.get(plugin, PROJECT)
    return "" if package.partition(" ")[0] == PROJECT else f"{plugin} ({package})"


def _line_for(stream: TextIO) -> progress.Show:
    """Return a function that writes a line about long work to `stream`.

    It keeps to the stream when a live display replaces `sys.stderr` in the meantime.
    """

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
      selfloop run quickstart      a first run; its model is fetched once
      selfloop recipes             more recipes to run
      selfloop new recipe          write a recipe of your own
    """


def main(args: list[str] | None = None) -> Any:
    """Run the command line and exit.

    The class of an error sets the exit code: see `selfloop/errors.py`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # a character that the terminal lacks must not end a run
            stream.reconfigure(errors="replace")
    logging.basicConfig(format="selfloop: %(message)s", level=logging.WARNING, handlers=[_Stderr()])
    # long work is logged, such as fetching a model
    logging.getLogger("selfloop").setLevel(logging.INFO)
    sys.exit(_exit_code(args))


def _exit_code(args: list[str] | None) -> int:
    """Run the command line; print an error as one message, and return the exit code."""
    try:
        with progress.shown_by(_line_for(sys.stderr)):
            result = selfloop.main(args=args, prog_name="selfloop", standalone_mode=False)
    except SelfloopError as error:
        from selfloop.text.display import printable_block

        first, *more = printable_block(str(error)).split("\n")
        _complain(first, *more)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MemoryError:
        _complain(
            "out of memory. Use a smaller model, or lower backend.n_ctx and backend.sequences."
        )
        return 1
    except (click.Abort, KeyboardInterrupt):
        _complain("stopped. It leaves no run that could be resumed.")
        return 130
    except OSError as error:
        # A name too long, a folder without permission, or no room for the output. Errors of a run's
        # own files are StoreErrors already.
        from selfloop.text.display import printable

        path = f"{printable(str(error.filename), LONGEST)}: " if error.filename else ""
        advice = (
            "Give another file or folder, or see who may use this one and how much room there is."
        )
        _complain(f"{path}{error.strerror or error}. {advice}")
        return StoreError.exit_code
    except RuntimeError as error:
        # pathlib raises these two in place of an OSError
        if not str(error).startswith(("Symlink loop", "Could not determine home")):
            raise
        from selfloop.text.display import printable

        reason = printable(str(error), LONGEST).rstrip(".")
        _complain(f"{reason}. Give another file or folder.")
        return StoreError.exit_code
    # A command may return its exit code, as `selfloop doctor` does.
    return result if isinstance(result, int) else 0


def _complain(first: str, *more: str) -> None:
    """Print a message on standard error; its lines are cut, for a name in one may be very long."""
    for line in (f"selfloop: {first}", *more):
        click.echo(line[:LONGEST], err=True)
