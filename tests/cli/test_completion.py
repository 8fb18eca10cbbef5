"""The Tab key: what it completes, in what a shell reads; and that nobody waits for it."""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pexpect
import pytest
from conftest import QUICK_S, RECIPE, Selfloop, cpu_limit, measured
from test_structure import HEAVY

from selfloop.cli.completion import INSTALL

pytestmark = pytest.mark.slow

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Complete the last word of a line, as the script for bash asks."""

    def _complete(line: str) -> list[str]:
        words = line.split(" ")
        with monkeypatch.context() as patch:
            patch.setenv("COMP_WORDS", line)
            patch.setenv("COMP_CWORD", str(len(words) - 1))
            patch.setenv("_SELFLOOP_COMPLETE", "bash_complete")
            return selfloop().out.splitlines()

    return _complete


@pytest.fixture
def runs(work: Path, selfloop: Selfloop) -> Path:
    (work / "r.yaml").write_text(RECIPE)
    for name in ("alpha", "also", "beta"):
        assert selfloop("run", "r.yaml", "--json", "--set", f"name={name}").code == 0
    (work / "runs/empty").mkdir()
    return work


def test_commands_and_options(complete: Complete) -> None:
    assert complete("selfloop re") == [
        "plain,resume",
        "plain,rescore",
        "plain,recipes",
        "plain,report",
    ]
    assert complete("selfloop new pl") == ["plain,plugin"]
    assert complete("selfloop show --on") == ["plain,--only"]
    assert complete("selfloop show --only de") == ["plain,declined"]


@pytest.mark.parametrize(
    "command", ["show", "resume", "rescore", "beliefs", "calibrate", "export", "rollback"]
)
def test_runs(command: str, runs: Path, complete: Complete) -> None:
    assert complete(f"selfloop {command} al") == ["dir,al", "plain,alpha", "plain,also"]


def test_runs_elsewhere(runs: Path, complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    (runs / "runs").rename(runs / "other")
    assert complete("selfloop show be") == ["dir,be"]
    assert complete("selfloop show --runs other be") == ["dir,be", "plain,beta"]
    monkeypatch.setenv("SELFLOOP_RUNS", "other")
    assert complete("selfloop show be") == ["dir,be", "plain,beta"]


def test_recipes(runs: Path, complete: Complete) -> None:
    for command in ("run", "check", "recipes"):
        assert complete(f"selfloop {command} qui") == ["file,qui", "plain,quickstart"]
    for command in ("ask", "eval", "score"):
        assert complete(f"selfloop {command} b") == ["file,b", "plain,blank-slate", "plain,beta"]


def test_components(complete: Complete) -> None:
    assert complete("selfloop plugins agr") == ["plain,agreement"]
    assert complete("selfloop plugins --kind det") == ["plain,detector"]
    assert complete("selfloop plugins --kind detector a") == [
        "plain,agreement",
        "plain,answer_probe",
        "plain,arithmetic",
    ]
    assert complete("selfloop plugins --kind command bel") == ["plain,beliefs"]


@pytest.mark.parametrize("shell", INSTALL)
def test_the_script_says_how_to_switch_it_on(shell: str, selfloop: Selfloop) -> None:
    said = selfloop("completion", shell)
    assert said.code == 0
    assert f"_SELFLOOP_COMPLETE={shell}_complete" in said.out
    assert said.out.splitlines()[-1] == f"# Enable it for good: {INSTALL[shell]}"
    assert INSTALL[shell] in selfloop("completion").out


def test_an_unknown_shell_is_refused(selfloop: Selfloop) -> None:
    said = selfloop("completion", "tcsh")
    assert said.code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in said.err


# The options of a shell without anybody's own settings, and how the script is switched on there.
SHELLS: dict[str, tuple[Sequence[str], str]] = {
    "bash": (["--norc", "--noprofile", "-i"], 'eval "$(selfloop completion bash)"'),
    "zsh": (
        ["-f", "-i"],
        'autoload -U compinit && compinit -u -D && eval "$(selfloop completion zsh)"',
    ),
    "fish": (["--no-config", "-i"], "selfloop completion fish | source"),
}


@pytest.mark.parametrize("shell", INSTALL)
def test_the_tab_key(shell: str, runs: Path) -> None:
    """A shell at a terminal, with this `selfloop` on its path, which also shows its arguments."""
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here; in CI there is")
    program = runs / "bin/selfloop"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nif [ "$1" = show ] && [ -z "$_SELFLOOP_COMPLETE" ]; then echo "given: $2 '
        '$3."; exit; fi\n'
        f'exec {sys.executable} -m selfloop.cli "$@"\n'
    )
    program.chmod(0o755)
    options, switch_on = SHELLS[shell]
    env = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(runs),
        "TERM": "dumb",
    }
    with pexpect.spawn(shell, list(options), env=env, encoding="utf-8", timeout=30) as typed:
        # what is typed is shown too, and is not what is waited for
        typed.sendline(f"{switch_on}; echo switched o''n")
        typed.expect("switched on")
        typed.sendline("selfloop show be\t")
        typed.expect(r"given: beta *\.")
        typed.sendline("selfloop show --only decl\t")
        typed.expect(r"given: --only declined\.")


@pytest.mark.parametrize(
    "line", ["selfloop ", "selfloop show ", "selfloop run ", "selfloop plugins ", "selfloop new "]
)
def test_nobody_waits_for_it(line: str, work: Path) -> None:
    asked = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "_SELFLOOP_COMPLETE": "bash_complete",
    }
    completed = measured("from selfloop.cli import main; main()", **asked)
    assert completed.stdout.startswith(("plain,", "dir,", "file,"))
    assert completed.modules & HEAVY == set()
    assert completed.seconds < cpu_limit(QUICK_S)
