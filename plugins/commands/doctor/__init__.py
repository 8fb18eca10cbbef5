"""`selfloop doctor`: checks this machine and installation, and suggests fixes.

findings.py      a finding, and how it is printed
installation.py  Python, packages, extras, plugins
hardware.py      processor, cores, memory; features.py: those that llama.cpp is fast with
engines.py       llama.cpp and the GPU, each asked in a process of its own
folders.py       the cache, other programs' models, runs

Each check is a function that yields findings. A check that raises stops no other: the error is its
finding.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict

import click

from selfloop import hookimpl
from selfloop.cli.options import as_json

from . import engines, folders, hardware, installation
from .findings import Finding, print_finding


@click.command("doctor")
@click.option("--deep", is_flag=True, help="Import PyTorch too, to see its GPU: takes seconds.")
@as_json
def command(deep: bool, as_json: bool) -> int:
    """Check this machine and installation, and suggest fixes.

    The exit code is 1 if something will not work.

    \b
    Examples:
      selfloop doctor
      selfloop doctor --deep --json
    """
    findings = list(examined(deep))
    wrong = sum(finding.level == "wrong" for finding in findings)
    slow = sum(finding.level == "slow" for finding in findings)
    if as_json:
        plain = [asdict(finding) for finding in findings]
        click.echo(json.dumps({"wrong": wrong, "findings": plain}, indent=2))
    else:
        for finding in findings:
            print_finding(finding)
        click.echo(f"\nwrong: {wrong or 'nothing'}. Slow: {slow or 'nothing'}.")
    return int(wrong > 0)


Check = Callable[[bool], Iterator[Finding]]
# topic -> its check, which is told whether to look deep
CHECKS: Mapping[str, Check] = {
    "python": installation.python,
    "selfloop": installation.packages,
    "extras": installation.extras,
    "plugins": installation.plugins,
    "processor": hardware.processor,
    "cores": hardware.cores,
    "memory": hardware.memory,
    "llama.cpp": engines.llama_cpp,
    "gpu": engines.gpu,
    "cache": folders.cache,
    "models": folders.model_stores,
    "runs": folders.runs,
}


def examined(deep: bool) -> Iterator[Finding]:
    """Yield the findings of all checks."""
    for topic, check in CHECKS.items():
        try:
            yield from check(deep)
        except Exception as error:  # noqa: BLE001  whatever is missing, the other checks go on
            message = f"could not be checked: {type(error).__name__}: {error}"
            yield Finding(topic, message, "note")


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer the command."""
    return [command]
