"""The documents say what the program does: their snippets run, what is generated is fresh, no link is dead."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Selfloop

from selfloop import protocols
from selfloop.hookspecs import Hooks
from selfloop.recipe import read
from selfloop.yaml_source import Source

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
# ```python or ```yaml, and as its first line the name of the file it is: `# name.py`
NAMED = re.compile(r"^```(?:python|yaml)\n# ([\w./-]+\.(?:py|yaml))\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r"^```(python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)")
HOOKS = [name for name in dir(Hooks) if name.startswith("selfloop_")]


def named(page: Path) -> dict[str, str]:
    return {match[1]: match[2] for match in NAMED.finditer(page.read_text(encoding="utf-8"))}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = [to for to in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / to).exists()]
    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_snippets_parse(page: Path, tmp_path: Path) -> None:
    for language, text in SNIPPET.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(text, name(page), "exec")
        else:
            (tmp_path / "snippet.yaml").write_text(text)
            Source(tmp_path / "snippet.yaml")


@pytest.mark.parametrize("page", [page for page in PAGES if named(page)], ids=name)
def test_snippets_that_are_files_run(page: Path, work: Path, selfloop: Selfloop) -> None:
    """A page's named snippets are written beside one another; its recipes run on the script, its tests pass."""
    files = named(page)
    for file, text in files.items():
        (work / file).parent.mkdir(parents=True, exist_ok=True)
        (work / file).write_text(text, encoding="utf-8")
    for file in files:
        if file.endswith(".yaml"):
            ran = selfloop("run", file, "--set", "backend=scripted")
            assert ran.code == 0, ran.text
            assert "failures: selfloop show" not in ran.out
        elif file.startswith("test_"):
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("recipe", sorted(ROOT.glob("selfloop/recipes/*.yaml")), ids=name)
def test_recipes_can_be_read_and_open_with_their_command(recipe: Path) -> None:
    loaded = read(recipe)
    assert loaded.recipe.name == recipe.stem
    first = recipe.read_text(encoding="utf-8").splitlines()[0]
    command = "eval MODEL" if recipe.stem == "default" else f"run {recipe.stem}"
    assert first.startswith(f"# selfloop {command}"), first


def test_generated_pages_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_page_is_named(tmp_path: Path) -> None:
    (tmp_path / "generate.py").write_text((ROOT / "docs" / "generate.py").read_text())
    command = [sys.executable, str(tmp_path / "generate.py")]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    page = tmp_path / "cli.md"
    page.write_text(page.read_text() + "more\n")
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "docs/cli.md is stale: run `make docs`\n")


@pytest.mark.parametrize("hook", HOOKS)
def test_the_tutorial_has_every_hook_with_its_signature(hook: str) -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    function = getattr(Hooks, hook)
    taken = ", ".join(list(inspect.signature(function).parameters)[1:])
    returned = function.__annotations__["return"]
    assert f"| `{hook}({taken})` | `{returned}` |" in text


KINDS = ["Backend", "QuestionSource", "Scorer", "Verifier", "Critic", "Demonstrator", "Tuner", "Observer"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tutorial_has_every_method_with_its_arguments(kind: str) -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if f"`{kind}`: " in line)
    for method, function in vars(getattr(protocols, kind)).items():
        if inspect.isfunction(function) and not method.startswith("_"):
            taken = ", ".join(list(inspect.signature(function).parameters)[1:])
            assert f"`{method}({taken})`" in row
