"""The Tab key: what it completes, in what a shell reads; and that nobody waits for it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RECIPE, Selfloop
from test_structure import HEAVY

from selfloop.cli.completion import INSTALL

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
    assert complete("selfloop re") == ["plain,resume", "plain,rescore", "plain,recipes", "plain,report"]
    assert complete("selfloop new pl") == ["plain,plugin"]
    assert complete("selfloop show --on") == ["plain,--only"]
    assert complete("selfloop show --only de") == ["plain,declined"]


@pytest.mark.parametrize("command", ["show", "resume", "rescore", "beliefs", "calibrate", "export", "rollback"])
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
    assert complete("selfloop plugins --kind ver") == ["plain,verifier"]
    assert complete("selfloop plugins --kind verifier a") == [
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
    assert said.out.splitlines()[-1] == f"# Switch it on for good: {INSTALL[shell]}"
    assert INSTALL[shell] in selfloop("completion").out


def test_an_unknown_shell_is_refused(selfloop: Selfloop) -> None:
    said = selfloop("completion", "tcsh")
    assert said.code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in said.err


def test_bash_takes_it(runs: Path) -> None:
    """The script as it is, in bash, with a `selfloop` on the path that is this one."""
    program = runs / "bin/selfloop"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m selfloop.cli "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(selfloop completion bash)"\n'
        "compopt() { :; }\n"  # there is one only while something is completed
        "COMP_WORDS=(selfloop show al) COMP_CWORD=2\n"
        '_selfloop_completion selfloop; echo "${COMPREPLY[@]}"\n'
    )
    env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, env=env)
    assert (done.stdout, done.stderr) == ("alpha also\n", "")


COUNTING = """
import contextlib, json, os, sys
with contextlib.suppress(SystemExit):
    from selfloop.cli import main
    main()
print(json.dumps([list(sys.modules), sum(os.times()[:2])]), file=sys.stderr)
"""


@pytest.mark.parametrize("line", ["selfloop ", "selfloop show ", "selfloop run ", "selfloop plugins ", "selfloop new "])
def test_nobody_waits_for_it(line: str, work: Path) -> None:
    """CPU seconds, as in test_structure: half a second is felt."""
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_SELFLOOP_COMPLETE": "bash_complete"}
    command, found = [sys.executable, "-c", COUNTING], []
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=os.environ | asked)
        assert done.stdout.startswith(("plain,", "dir,", "file,"))
        found.append(json.loads(done.stderr))
    assert {name.split(".")[0] for name in found[0][0]} & HEAVY == set()
    assert min(seconds for _, seconds in found) < 0.35
