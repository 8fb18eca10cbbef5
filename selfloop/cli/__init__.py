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

# name -> what `selfloop --help` says; the module is selfloop.cli.<name>, its command is called
# `command`
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
LONGEST = 2000  # characters of a line of a message, in which a name of any length may stand
WIDEST = 120  # characters of a plugin's command in the list; the rest stands in its own help


class Commands(click.Group):
    """The commands above, and after them the ones of plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, ours first."""
        return [*COMMANDS, *sorted(_plugin_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command; only this imports its module."""
        if cmd_name in COMMANDS:
            command: click.Command = importlib.import_module(f"selfloop.cli.{cmd_name}").command
            return command
        return _plugin_commands().get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing our commands, so that `--help` is quick."""
        commands, left_out = commands_of_plugins()
        with formatter.section("Commands"):
            formatter.write_dl(_listed(commands))
        for name, why in left_out.items():
            click.echo(f"warning: {name} is left out: {why}", err=True)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what a plugin's raises that no user can mend is named with its package."""
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
            if owner := _owner(str(ctx.invoked_subcommand)):
                from selfloop.guard import said

                broken = f"the command {ctx.invoked_subcommand} of the plugin {owner} is broken"
                raise PluginError(f"{broken}: {type(error).__name__}: {said(error)}") from error
            raise

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a name without importing our commands, so that the Tab key is quick."""
        found = [
            CompletionItem(name, help=what)
            for name, what in _listed(_plugin_commands())
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


def _listed(commands: dict[str, click.Command]) -> list[tuple[str, str]]:
    """Return each command and what it does, ours first."""
    added = sorted((name, short_help(command, WIDEST)) for name, command in commands.items())
    return [*COMMANDS.items(), *added]


def short_help(command: click.Command, limit: int) -> str:
    """Return what a command does, as it says itself; an empty string where it cannot."""
    try:
        return command.get_short_help_str(limit)
    except Exception:  # noqa: BLE001  a plugin's command: `selfloop --help` is there whatever it does
        return ""


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at the time: a live picture takes it over, so as to draw itself below the line."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Return the standard error output."""
        return sys.stderr


def commands_of_plugins(
    catalog: "Catalog | None" = None,
) -> tuple[dict[str, click.Command], dict[str, str]]:
    """Return the commands of plugins by name, and those that are left out, for their names are taken, and why."""
    from selfloop.registry.manager import load

    return (catalog or load(commands_only=True)).commands_beside(COMMANDS)


def _plugin_commands() -> dict[str, click.Command]:
    return commands_of_plugins()[0]


def _owner(name: str) -> str:
    """Return the plugin and package that a command comes from; an empty string for those of selfloop."""
    from selfloop.registry.hookspecs import PROJECT
    from selfloop.registry.manager import load

    catalog = load()
    command = commands_of_plugins(catalog)[0].get(name)
    plugin = next((plugin for plugin, offered in catalog.commands if offered is command), "")
    package = catalog.plugins.get(plugin, PROJECT)
    return "" if package.partition(" ")[0] == PROJECT else f"{plugin} ({package})"


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
            # a character the terminal lacks must not end a run
            stream.reconfigure(errors="replace")
    logging.basicConfig(format="selfloop: %(message)s", level=logging.WARNING, handlers=[_Stderr()])
    # what takes long is said: a model being fetched
    logging.getLogger("selfloop").setLevel(logging.INFO)
    try:
        with progress.shown_by(_line_for(sys.stderr)):
            result = selfloop.main(args=args, prog_name="selfloop", standalone_mode=False)
    except SelfloopError as error:
        from selfloop.text.display import printable_block

        lines = printable_block(str(error)).split("\n")
        click.echo(
            "\n".join(line[:LONGEST] for line in [f"selfloop: {lines[0]}", *lines[1:]]), err=True
        )
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except MemoryError:
        click.echo(
            "selfloop: out of memory. Use a smaller model, or lower backend.n_ctx and "
            "backend.sequences.",
            err=True,
        )
        code = 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("selfloop: stopped. It leaves no run that could be resumed.", err=True)
        code = 130
    except OSError as error:  # a name too long, a folder that may not be looked into, no room for what is printed
        from selfloop.text.display import printable

        where = f"{printable(str(error.filename), LONGEST)}: " if error.filename else ""
        advice = (
            "Give another file or folder, or see who may use this one and how much room there is."
        )
        click.echo(f"selfloop: {where}{error.strerror or error}. {advice}", err=True)
        code = StoreError.exit_code
    except RuntimeError as error:  # of pathlib, in place of an OSError
        if not str(error).startswith(("Symlink loop", "Could not determine home")):
            raise
        from selfloop.text.display import printable

        click.echo(
            f"selfloop: {printable(str(error), LONGEST).rstrip('.')}. Give another file or folder.",
            err=True,
        )
        code = StoreError.exit_code
    else:
        code = result if isinstance(result, int) else 0
    sys.exit(code)
