"""The documents match the program: snippets run, generated pages are fresh, no link is dead."""

import inspect
import re
import shlex
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from conftest import Selfloop
from ruamel.yaml import YAML

from selfloop import Claim, Completion, Question, protocols
from selfloop.cli import selfloop as group
from selfloop.config.yaml_source import Source
from selfloop.registry.hookspecs import Hooks
from selfloop.registry.manager import load

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TESTS = ROOT / "tests"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
# ```python or ```yaml, and as its first line the name of the file it is: `# name.py`; or ```text
# title="name.txt"
NAMED = re.compile(
    r"^```(?:(?:python|yaml)\n# ([\w./-]+\.(?:py|yaml))|text title=\"([\w./-]+)\")\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SNIPPET = re.compile(r"^```(python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)")
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ )?(selfloop [a-z].*)$", re.MULTILINE)
LONG_PARAGRAPH = 120  # in characters: shorter ones may be said again
MENU = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
HOOKS = [name for name in dir(Hooks) if name.startswith("selfloop_")]


def named(page: Path) -> dict[str, str]:
    return {
        match[1] or match[2]: match[3] for match in NAMED.finditer(page.read_text(encoding="utf-8"))
    }


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = [
        to
        for to in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / to).exists()
    ]
    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_begins_with_its_title_and_says_nothing_twice(page: Path) -> None:
    """An edit by a script once wrote one paragraph between all letters of a page."""
    text = page.read_text(encoding="utf-8")
    prose = FENCED.sub("", text)
    paragraphs = [
        paragraph for paragraph in prose.split("\n\n") if len(paragraph) >= LONG_PARAGRAPH
    ]
    repeated = [paragraph for paragraph, count in Counter(paragraphs).items() if count > 1]
    assert text.startswith("# ")
    assert not repeated


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_snippets_parse(page: Path, tmp_path: Path) -> None:
    for language, text in SNIPPET.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(text, name(page), "exec")
        else:
            (tmp_path / "snippet.yaml").write_text(text)
            Source(tmp_path / "snippet.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if named(page)], ids=name)
def test_snippets_that_are_files_run(page: Path, work: Path, selfloop: Selfloop) -> None:
    """A page's named snippets are written beside one another.

    Its recipes run on the script, its tests pass, and its examples run.
    """
    files = named(page)
    for file, text in files.items():
        (work / file).parent.mkdir(parents=True, exist_ok=True)
        (work / file).write_text(text, encoding="utf-8")
    for file in files:
        if file.endswith(".yaml"):
            ran = selfloop("run", file, "--set", "backend=scripted")
            assert ran.code == 0, ran.text
            assert "failures: selfloop show" not in ran.out
        elif file.startswith(("test_", "example")):
            runner = ["-m", "pytest", "-p", "no:cacheprovider"] if file.startswith("test_") else []
            command = [sys.executable, *runner, file]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_their_options_exist(page: Path) -> None:
    """A page's commands exist, and have the options that it gives them."""
    context = click.Context(group, info_name="selfloop")
    fenced = FENCED.findall(page.read_text(encoding="utf-8"))
    for line in COMMAND.findall(
        "".join(text for language, text in fenced if language in ("", "text"))
    ):
        words = shlex.split(line, comments=True)
        command = group.get_command(context, words[1])
        assert command, line
        if isinstance(command, click.Group):
            command = command.commands[words[2]]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words[2:] if word.startswith("--")} <= options, line


def test_every_page_is_in_the_menu() -> None:
    """A page is in the menu by its name or by a pattern, which docs/hooks.py expands."""
    listed: list[str] = []
    for part in YAML(typ="safe").load(MENU)["nav"]:
        for pages in part.values():
            listed += [pages] if isinstance(pages, str) else pages
    assert listed[0] == "index.md", "README.md, which docs/hooks.py puts there"
    shown: list[Path] = []
    for page in listed[1:]:
        shown += DOCS.glob(page)
    assert sorted(shown) == sorted(DOCS.rglob("*.md"))


def test_every_detector_has_a_page_and_a_test() -> None:
    """Who adds a detector writes its module, its page, and a test that imports the module."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    names = set()
    for kind, offer in load():
        module = offer.component.build.__module__
        if kind != "detector" or not module.startswith("selfloop_plugins."):
            continue
        name = offer.component.name
        names.add(name)
        assert f"from {module} import" in tests, f"no test imports {module}"
        page = DOCS / "detectors" / f"{name}.md"
        assert page.is_file(), f"docs/detectors/{name}.md is missing"
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {name}\n\n**"), f"{page.name}: the question it answers is first"
        for part in ("\nConfidence: ", "\nCosts beside answering: ", "\n## When it fails\n"):
            assert part in text, f"{page.name} lacks {part.strip()!r}"
    assert {page.stem for page in DOCS.glob("detectors/*.md")} == names


@pytest.mark.parametrize("picture", sorted(DOCS.glob("pictures/*.svg")), ids=name)
def test_pictures_are_light_and_dark_and_whole(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert "prefers-color-scheme: dark" in text
    assert "<title" in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` builds it: whatever is warned of is refused."""
    pytest.importorskip("material", reason="pip install 'selfloop[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(folder),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_the_readme_and_the_sources(site: Path) -> None:
    first = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="tutorial.html"' in first
    assert 'href="source/selfloop/loop.py.html"' in first
    assert "def</span>" in (site / "source/selfloop/loop.py.html").read_text(encoding="utf-8")
    assert not list(site.glob("*.py")), "what makes the site is not in it"


@pytest.mark.slow
def test_the_site_lists_the_detectors(site: Path) -> None:
    """The menu and the table of docs/detectors.md are made from the pages there are."""
    overview = (site / "detectors.html").read_text(encoding="utf-8")
    for page in DOCS.glob("detectors/*.md"):
        links = overview.count(f'href="detectors/{page.stem}.html"')
        assert links >= 2, f"{page.stem} is not in the menu and the table"


@pytest.mark.slow
def test_the_site_fetches_nothing(site: Path) -> None:
    fetched = re.compile(
        r"""<(?:script|img|iframe)[^>]+src=["']?https?:|<link[^>]+href=["']?https?:|url\(["']?https?:"""
    )
    for page in (*site.rglob("*.html"), *site.rglob("*.css")):
        assert not fetched.search(page.read_text(encoding="utf-8")), page


@pytest.mark.slow
def test_links_to_the_sources_lead_to_the_repository_once_it_is_known(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="pip install 'selfloop[docs]'")
    config = tmp_path / "mkdocs.yml"
    named = MENU.replace('repo_url: ""', "repo_url: https://example.org/selfloop")
    config.write_text(
        f"{named}".replace("docs_dir: docs", f"docs_dir: {DOCS}").replace(
            "docs/hooks.py", f"{DOCS}/hooks.py"
        )
    )
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'href="https://example.org/selfloop/blob/HEAD/selfloop/loop.py"' in (
        tmp_path / "build/site/index.html"
    ).read_text(encoding="utf-8")
    assert not (tmp_path / "build/site/source").exists()


def test_generated_pages_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
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


KINDS = [
    "Backend",
    "QuestionSource",
    "Scorer",
    "Detector",
    "Critic",
    "FewShotSelector",
    "Tuner",
    "Observer",
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tutorial_has_every_method_with_its_arguments(kind: str) -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if f"`{kind}`: " in line)
    for method, function in vars(getattr(protocols, kind)).items():
        if inspect.isfunction(function) and not method.startswith("_"):
            taken = ", ".join(list(inspect.signature(function).parameters)[1:])
            assert f"`{method}({taken})`" in row


def test_the_example_of_contributing_is_a_detector() -> None:
    """The module of the page runs as if it stood in the room of its kind."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    match = re.search(r"^ {3}```python\n(.*?)^ {3}```", page, re.MULTILINE | re.DOTALL)
    assert match
    module = {"__package__": "selfloop_plugins.detectors", "__name__": "length"}
    exec(textwrap.dedent(match[1]), module)
    (component,) = module["selfloop_detectors"]()
    claim = Claim(Question("Who?", "test"), Completion("Ada", tokens=(1, 2)), ())
    (verdict,) = component.build().verify([claim], None)
    assert verdict.confidence == 0.5


def test_every_source_and_scorer_is_described() -> None:
    page = (DOCS / "asking.md").read_text(encoding="utf-8")
    missing = []
    for kind, offer in load():
        built_in = offer.component.build.__module__.startswith("selfloop_plugins.")
        if built_in and kind in ("source", "scorer") and f"`{offer.component.name}`" not in page:
            missing.append(offer.component.name)
    assert missing == [], "each has a row in a table of docs/asking.md"
