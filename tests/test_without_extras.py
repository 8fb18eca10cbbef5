"""What works with the core packages alone: an import hook refuses those of all extras."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# of the extras report, stats, parquet, hf, tune, llamacpp, view and so on
REFUSED = (
    "datasets", "gguf", "llama_cpp", "matplotlib", "mlflow", "pandas", "peft", "pyarrow",
    "safetensors", "scipy", "sentence_transformers", "sklearn", "spacy", "squarify", "starlette",
    "tensorboardX", "torch", "trackio", "transformers", "uvicorn", "wandb",
)  # fmt: skip
MAIN = f"""\
import sys


class Refusing:
    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        if package in {REFUSED!r}:
            raise ModuleNotFoundError(f"No module named {{package!r}}", name=package)


sys.meta_path.insert(0, Refusing())
from selfloop.cli import main

sys.exit(main(sys.argv[1:]))
"""
RECIPE = """\
rounds: 1
backend: scripted
ask: {questions: 3, scorers: [], sources: [{kind: file, path: asked.txt}]}
answer: {samples: 2}
"""
ASKED = """\
What is the capital of Egypt?
Which planet is the largest one?
How many legs does a spider have?
"""
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a recipe."""
    folder = tmp_path_factory.mktemp("core")
    for name, text in (("main.py", MAIN), ("r.yaml", RECIPE), ("asked.txt", ASKED)):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def command(work: Path) -> Command:
    """Return a function that runs `selfloop` in a process without the packages of extras."""

    def run(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "main.py", *args], cwd=work, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def played(command: Command) -> subprocess.CompletedProcess[str]:
    """Return a run's output."""
    return command("run", "r.yaml")


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["check", "r.yaml"],
        ["plugins"],
        ["new", "recipe", "mine.yaml", "--model", "scripted", "--for", "knowledge"],
        ["new", "plugin", "mine", "--kind", "detector"],
    ],
    ids=" ".join,
)
def test_commands_need_no_extra(args: list[str], command: Command) -> None:
    assert "Traceback" not in command(*args).stderr


def test_a_run_skips_its_report_and_goes_on(
    played: subprocess.CompletedProcess[str], work: Path, command: Command
) -> None:
    assert played.stderr.count("report skipped: pip install 'selfloop[report]'") == 1
    assert (work / "runs/r/run.sqlite").is_file()
    assert not (work / "runs/r/report.html").exists()
    assert "capital of Egypt" in command("show", "r").stdout


@pytest.mark.parametrize("args", [["report", "r"], ["compare", "r", "r", "--out", "c.html"]])
def test_a_page_is_refused_with_what_to_install(
    args: list[str], played: subprocess.CompletedProcess[str], command: Command
) -> None:
    error = command(*args, code=2).stderr
    assert "needs the package matplotlib, which is not installed" in error
    assert error.endswith("Do: pip install 'selfloop[report]'\n")


def test_a_plan_is_refused_with_what_to_install(command: Command) -> None:
    error = command("plan", "r.yaml", code=2).stderr
    assert error == (
        "selfloop: selfloop plan needs the package scipy, which is not installed. Do: pip install "
        "'selfloop[stats]'\n"
    )


def test_runs_are_compared_without_a_page(
    played: subprocess.CompletedProcess[str], command: Command
) -> None:
    assert "3 questions were asked in more than one run" in command("compare", "r", "r").stdout
