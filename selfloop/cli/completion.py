"""`selfloop completion [SHELL]`"""

import click

# shell -> the line that enables its completion for good
INSTALL = {
    "bash": """echo 'eval "$(selfloop completion bash)"' >> ~/.bashrc""",
    "zsh": """echo 'eval "$(selfloop completion zsh)"' >> ~/.zshrc      # after compinit""",
    "fish": "selfloop completion fish > ~/.config/fish/completions/selfloop.fish",
}
VARIABLE = "_SELFLOOP_COMPLETE"  # click completes where a shell sets it


@click.command("completion")
@click.argument("shell", type=click.Choice(list(INSTALL)), required=False)
def command(shell: str | None) -> None:
    """Print the script with which SHELL completes commands, options, runs, recipes and components.

    Without SHELL, print how to enable it for good.

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

    completion = get_completion_class(shell)
    assert completion is not None, "click knows the three"
    source = completion(selfloop, {}, "selfloop", VARIABLE).source().strip()
    # The hint comes last: zsh needs its own first line.
    return f"{source}\n# Enable it for good: {INSTALL[shell]}"
