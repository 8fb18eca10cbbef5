"""`selfloop completion [SHELL]`"""

import click

# shell -> how its completion is switched on for good
INSTALL = {
    "bash": """echo 'eval "$(selfloop completion bash)"' >> ~/.bashrc""",
    "zsh": """echo 'eval "$(selfloop completion zsh)"' >> ~/.zshrc      # after compinit""",
    "fish": "selfloop completion fish > ~/.config/fish/completions/selfloop.fish",
}
VARIABLE = "_SELFLOOP_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(list(INSTALL)), required=False)
def command(shell: str | None) -> None:
    """Print the script by which SHELL completes commands, options, runs, recipes and components.

    Without SHELL, say how to switch it on for good.

    \b
    Examples:
      selfloop completion
      selfloop completion fish > ~/.config/fish/completions/selfloop.fish
    """
    if shell is None:
        click.echo(
            "To complete `selfloop` by the Tab key, run the line of your shell once and open a "
            "new terminal:\n"
        )
        for name, line in INSTALL.items():
            click.echo(f"  {name:5} {line}")
        return
    click.echo(_script(shell))


def _script(shell: str) -> str:
    from click.shell_completion import get_completion_class

    from selfloop.cli import selfloop

    found = get_completion_class(shell)
    assert found is not None, "click knows the three"
    source = found(selfloop, {}, "selfloop", VARIABLE).source().strip()
    # last, for zsh wants its own first line first
    return f"{source}\n# Switch it on for good: {INSTALL[shell]}"
