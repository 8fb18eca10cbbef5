"""`selfloop new` and `selfloop recipes`, as somebody uses them who has nothing yet."""

import json
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest
from conftest import Selfloop
from selfloop_plugins.scaffold import KINDS, PURPOSES, new

from selfloop.config.bundled import names
from selfloop.config.yaml_source import Source

pytestmark = pytest.mark.slow


def pytest_in(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


# --- new recipe


def typed(*args: str, answers: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(new, ["recipe", *args], input=answers)


def test_two_questions_make_a_recipe(work: Path, selfloop: Selfloop) -> None:
    said = typed(answers="\nknowledge\n")
    assert said.exit_code == 0
    assert (
        "Which model?" in said.output
        and "decline    teach it to decline questions that it cannot answer" in said.output
    )
    assert said.output.endswith(
        "written: recipe.yaml\n  check it:  selfloop check recipe.yaml\n  run it:    selfloop run "
        "recipe.yaml\n"
    )
    assert (work / "recipe.yaml").read_text().startswith("# selfloop run recipe.yaml\n")
    assert (
        selfloop("check", "recipe.yaml").out
        == "recipe.yaml can run: 2 rounds, 80 questions at most.\n"
    )


def test_a_wrong_answer_is_said_and_asked_again(work: Path) -> None:
    said = typed(answers="smollm2-135m\nscripted\nknow\nknowledge\n")
    assert said.exit_code == 0
    assert "Error: no model 'smollm2-135m'. Did you mean 'smollm2-135m-instruct'?" in said.output
    assert "'know' is not one of 'knowledge', 'questions', 'decline'" in said.output
    assert Source(work / "recipe.yaml").data["backend"] == {"kind": "scripted"}


@pytest.mark.parametrize(
    "model", ["scripted", "smollm2-135m-instruct", "gemma-3-270m", "Qwen/Qwen2.5-1.5B", "a b.gguf"]
)
@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_answer_makes_a_recipe_that_can_run(
    model: str, purpose: str, work: Path, selfloop: Selfloop
) -> None:
    (work / "a b.gguf").write_bytes(b"GGUF\x03" + bytes(30))
    made = selfloop("new", "recipe", "deep/mine.yaml", "--model", model, "--for", purpose)
    assert made.code == 0, made.err
    said = selfloop("check", "deep/mine.yaml", "--accept-license")
    assert said.code == 0, made.out
    assert ("deep/questions.jsonl: JSONL, 3 rows, 3 questions" in said.err) == (
        purpose == "questions"
    )
    data = Source(work / "deep/mine.yaml").data
    assert data["backend"].get("model", "scripted") in (model, "../a b.gguf")
    assert ("tuner" in data) == (purpose == "decline")
    assert (work / "deep/questions.jsonl").exists() == (purpose == "questions")


@pytest.mark.parametrize("purpose", PURPOSES)
def test_what_is_written_runs(purpose: str, work: Path, selfloop: Selfloop) -> None:
    selfloop("new", "recipe", "--model", "scripted", "--for", purpose)
    said = selfloop("run", "recipe.yaml", "--set", "tuner=null", "--set", "ask.questions=3")
    assert said.code == 0, said.err
    assert "Results" in said.out


def test_your_own_question_file(work: Path, selfloop: Selfloop) -> None:
    (work / "mine.txt").write_text("Who was it?\nWhere was it?\n")
    selfloop("new", "recipe", "deep/r.yaml", "--model", "scripted", "--questions", "mine.txt")
    assert Source(work / "deep/r.yaml").data["ask"]["sources"] == [
        {"kind": "file", "path": "../mine.txt"}
    ]
    assert (
        selfloop("check", "deep/r.yaml").out
        == "deep/r.yaml can run: 1 round, 2 questions at most.\n"
    )
    assert not (work / "deep/questions.jsonl").exists()


def test_terms_are_named(selfloop: Selfloop) -> None:
    said = selfloop("new", "recipe", "--model", "gemma-3-270m", "--for", "knowledge")
    assert "selfloop run recipe.yaml --accept-license" in said.out
    assert "https://ai.google.dev/gemma/terms" in said.out


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (
            ("--model", "smolm2-135m", "--for", "knowledge"),
            2,
            "no model 'smolm2-135m'. Did you mean 'smollm2-135m",
        ),
        (("--model", "none.gguf", "--for", "knowledge"), 3, "no such file: none.gguf"),
        (("--model", "scripted", "--for", "fun"), 2, "'fun' is not one of 'knowledge'"),
        (
            ("--for", "decline", "--questions", "a.txt"),
            2,
            "--questions is a file to answer, which --for decline",
        ),
        (
            ("there.yaml", "--model", "scripted"),
            1,
            "there.yaml is there already, and stays as it is",
        ),
        (
            ("a/b/", "--model", "scripted", "--for", "knowledge"),
            5,
            "cannot write a: File exists. Choose another",
        ),
    ],
)
def test_a_recipe_that_cannot_be(
    args: tuple[str, ...], code: int, message: str, work: Path, selfloop: Selfloop
) -> None:
    (work / "there.yaml").write_text("mine")
    (work / "a").write_text("a file")
    said = selfloop("new", "recipe", *args)
    assert (said.code, said.out) == (code, "")
    assert message in said.err
    assert (work / "there.yaml").read_text() == "mine"
    assert sorted(path.name for path in work.iterdir()) == ["a", "there.yaml"]


def test_without_a_terminal_it_says_how_to_answer(work: Path) -> None:
    command = [sys.executable, "-m", "selfloop.cli", "new", "recipe"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 130
    assert done.stderr.endswith(
        "To answer without a terminal: selfloop new recipe --model MODEL --for knowledge\n"
    )
    assert list(work.iterdir()) == []


def test_without_any_standard_input_too(work: Path) -> None:
    line = f"{sys.executable} -m selfloop.cli new recipe <&-"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert done.stderr.startswith("selfloop: nothing was written. To answer without a terminal: ")


def test_what_could_not_be_written_whole_is_not_left_in_the_way(work: Path) -> None:
    for size, code in (("1", 5), ("unlimited", 0)):
        line = (
            f"ulimit -f {size}; {sys.executable} -m selfloop.cli recipes quickstart --out mine.yaml"
        )
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert (work / "mine.yaml").exists() == (code == 0)


# --- new plugin


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_passes_its_tests_and_runs(kind: str, work: Path, selfloop: Selfloop) -> None:
    made = selfloop("new", "plugin", "fresh_one", "--kind", kind)
    assert made.code == 0, made.err
    assert made.out.startswith(
        f"written: selfloop-fresh-one, with the {kind} fresh_one in selfloop_fresh_one.py\n"
    )
    folder = work / "selfloop-fresh-one"
    assert sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    ) == [
        *(
            "README.md",
            "pyproject.toml",
            "recipe.yaml",
            "selfloop_fresh_one.py",
            "tests/test_fresh_one.py",
        )
    ]
    done = pytest_in(folder)
    assert done.returncode == 0, done.stdout
    plugins = [] if kind == "command" else ["--set", "plugins=[selfloop_fresh_one.py]"]
    said = selfloop("run", folder / "recipe.yaml", *plugins)
    assert said.code == 0, said.err
    assert "failures" not in said.out


@pytest.mark.parametrize(
    ("name", "kind"), [("verdict", "detector"), ("question", "source"), ("none", "critic")]
)
def test_a_name_that_the_module_uses_itself_passes_too(
    name: str, kind: str, work: Path, selfloop: Selfloop
) -> None:
    selfloop("new", "plugin", name, "--kind", kind)
    done = pytest_in(work / f"selfloop-{name}")
    assert done.returncode == 0, done.stdout


def test_the_package_has_a_name_that_pip_takes(work: Path, selfloop: Selfloop) -> None:
    from packaging.requirements import Requirement

    for name in ("list_", "_own", "two__three"):
        selfloop("new", "plugin", name, "--kind", "detector", "--out", name)
        (line,) = [
            line
            for line in (work / name / "pyproject.toml").read_text().splitlines()
            if line[:4] == "name"
        ]
        assert Requirement(line.split('"')[1]).name.startswith("selfloop-")


def test_what_is_written_is_formatted(work: Path, selfloop: Selfloop) -> None:
    checks = (["check", "--select", "E,F,I,UP,RUF,ANN001"], ["format", "--check"])
    for kind in KINDS:
        selfloop("new", "plugin", f"fresh_{kind}", "--kind", kind)
        for check in checks:
            ruff = [sys.executable, "-m", "ruff", *check]
            command = [*ruff, "--line-length", "100", "--no-cache", "."]
            folder = work / f"selfloop-fresh-{kind}".replace("_", "-")
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stdout


def test_an_installed_plugin_is_found(
    work: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the entry point that pyproject.toml has: what pip makes of it lies on the path."""
    selfloop("new", "plugin", "found", "--kind", "detector")
    folder = work / "selfloop-found"
    info = folder / "selfloop_found-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: selfloop-found\nVersion: 0.1.0\n")
    project = (folder / "pyproject.toml").read_text()
    (line,) = [line for line in project.splitlines() if line.startswith("found = ")]
    (info / "entry_points.txt").write_text("[selfloop]\n" + line.replace('"', ""))
    monkeypatch.syspath_prepend(str(folder))
    assert "from found (selfloop-found 0.1.0)\n" in selfloop("plugins", "found").out
    assert selfloop("run", "selfloop-found/recipe.yaml").code == 0
    again = selfloop("new", "plugin", "found", "--kind", "scorer", "--out", "other")
    assert again.err == (
        "selfloop: a detector named 'found' is installed already, by the plugin found "
        "(selfloop-found 0.1.0). "
        "Choose another name.\n"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "my-thing",
            "a plugin cannot be called 'my-thing', for its name is also that of a Python module: "
            "use",
        ),
        ("my-thing", "as in 'my_thing'."),
        ("_", "a plugin cannot be called '_', for its name"),
        ("_2fast", "a plugin cannot be called '_2fast', for its name"),
        ("2fast", "a plugin cannot be called '2fast'"),
        ("class", "a plugin cannot be called 'class'"),
        ("../up", "a plugin cannot be called '../up'"),
        ("", "a plugin cannot be called ''"),
        ("\x1b[31mred", "a plugin cannot be called '\N{REPLACEMENT CHARACTER}[31mred'"),
        (
            "agreement",
            "a detector named 'agreement' is installed already, by the plugin agreement (selfloop "
            "0",
        ),
        ("beliefs", "a command named 'beliefs' is installed already"),
        ("scaffold", "a plugin named 'scaffold' is installed already"),
        ("run", "selfloop has a command run. Choose another name."),
    ],
)
def test_a_name_that_cannot_be(name: str, message: str, work: Path, selfloop: Selfloop) -> None:
    said = selfloop("new", "plugin", name, "--kind", "detector")
    assert (said.code, said.out) == (1, "")
    assert message in said.err
    assert list(work.iterdir()) == []


def test_a_plugin_never_replaces_anything(work: Path, selfloop: Selfloop) -> None:
    (work / "selfloop-fresh").mkdir()
    (work / "selfloop-fresh/mine.txt").write_text("mine")
    said = selfloop("new", "plugin", "fresh", "--kind", "detector")
    assert said.code == 1
    assert (
        "selfloop-fresh is there already, and stays as it is. Give another folder with --out."
        in said.err
    )
    assert len(list((work / "selfloop-fresh").iterdir())) == 1
    assert selfloop("new", "plugin", "fresh", "--kind", "detector", "--out", "a/b").code == 0
    assert (work / "a/b/selfloop_fresh.py").is_file()


def test_an_unknown_kind_is_refused(selfloop: Selfloop) -> None:
    said = selfloop("new", "plugin", "fresh", "--kind", "oracle")
    assert said.code == 2
    assert "'oracle' is not one of 'detector', 'source'" in said.err


# --- recipes


def test_the_recipes_are_listed_with_what_they_need(selfloop: Selfloop) -> None:
    said = selfloop("recipes")
    assert (said.code, said.err) == (0, "")
    shown = said.out.splitlines()
    at = shown.index("honest-smollm2")
    assert shown[at + 1].startswith("  The full loop on SmolLM2-135M, a chat model")
    assert shown[at + 2].startswith("  model smollm2-135m-instruct; extras llamacpp, tune")
    found = json.loads(selfloop("recipes", "--json").out)
    assert [one["name"] for one in found] == names()
    assert all(one["about"] and len(one["about"]) < 130 for one in found)
    assert found[names().index("gpu")]["extras"] == ["hf", "tune"]


def test_a_missing_extra_is_said(selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfloop.cli import extras

    monkeypatch.setattr(extras, "_is_installed", lambda name: name != "peft")
    assert "llamacpp, tune (not installed: pip install 'selfloop[tune]')" in selfloop("recipes").out
    shown = selfloop("plugins", "lora").out
    assert "extra tune: peft missing. Do: pip install 'selfloop[tune]'\n" in shown


@pytest.mark.parametrize("name", names())
def test_a_recipe_is_copied_to_be_edited(name: str, work: Path, selfloop: Selfloop) -> None:
    assert selfloop("recipes", name, "--out", "mine.yaml").code == 0
    assert selfloop("check", "mine.yaml", "--accept-license").code == 0
    assert Source(work / "mine.yaml").data == json.loads(
        json.dumps(Source(Path(names_file(name))).data)
    )
    again = selfloop("recipes", name, "--out", "mine.yaml")
    assert (
        again.err
        == "selfloop: mine.yaml is there already, and stays as it is. Give another name, or move "
        "it away.\n"
    )
    assert selfloop("recipes", name).out == Path(names_file(name)).read_text()


def names_file(name: str) -> str:
    from selfloop.config.bundled import bundled

    return str(bundled(name))


def test_a_copy_opens_with_its_own_command(work: Path, selfloop: Selfloop) -> None:
    said = selfloop("recipes", "quickstart", "--out", "mine.yaml")
    assert said.out == "written: mine.yaml\nRun it: selfloop run mine.yaml\n"
    assert (work / "mine.yaml").read_text().splitlines()[0] == "# selfloop run mine.yaml"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (
            ("quikstart",),
            2,
            "no recipe named 'quikstart' comes with selfloop. Did you mean 'quickstart'?",
        ),
        (("--out", "x.yaml"), 2, "--out is for one recipe: give its NAME too."),
        (("quickstart", "--out", "no/such/../x.yaml/"), 0, ""),
        (("quickstart", "--out", "folder"), 2, "is a directory"),
        (("quickstart", "--json"), 2, "--json is for the list: leave NAME out."),
    ],
)
def test_a_recipe_that_cannot_be_copied(
    args: tuple[str, ...], code: int, message: str, work: Path, selfloop: Selfloop
) -> None:
    (work / "folder").mkdir()
    said = selfloop("recipes", *args)
    assert said.code == code
    assert message in said.err


# --- run NAME


def test_a_recipe_runs_by_its_name(work: Path, selfloop: Selfloop) -> None:
    """With a path set in it that is the user's, not the package's."""
    (work / "mine.txt").write_text("Who was it?\n")
    own = [
        "--set",
        "backend={kind: scripted}",
        "--set",
        "ask.questions=1",
        "--set",
        "ask.scorers=[]",
    ]
    own += ["--set", "ask.sources=[{kind: file, path: mine.txt}]", "--set", "rounds=1"]
    said = selfloop("run", "quickstart", *own)
    assert said.code == 0, said.err
    assert "Run saved to runs/quickstart." in said.out
    assert selfloop("resume", "quickstart").code == 0
    assert selfloop("check", "quickstart").code == 0


def test_a_recipe_with_files_of_its_own_has_them(work: Path, selfloop: Selfloop) -> None:
    said = selfloop("run", "own-questions", "--set", "backend=scripted", "--set", "ask.questions=2")
    assert said.code == 0, said.err
    assert selfloop("recipes", "own-questions", "--out", "mine.yaml").code == 0
    assert (work / "own-questions.txt").is_file()
    assert (
        selfloop("run", "mine.yaml", "--set", "backend=scripted", "--set", "ask.questions=2").code
        == 0
    )


def test_a_file_of_that_name_comes_first(work: Path, selfloop: Selfloop) -> None:
    (work / "quickstart").write_text(
        "backend: scripted\nask: {questions: 7, sources: [blank_slate]}\n"
    )
    assert (
        selfloop("check", "quickstart").out
        == "quickstart can run: 2 rounds, 14 questions at most.\n"
    )


def test_a_name_that_is_none(selfloop: Selfloop) -> None:
    for args in (
        ("run", "quikstart"),
        ("check", "quikstart.yaml"),
        ("eval", "quikstart.yaml", "--data", "x.jsonl"),
    ):
        said = selfloop(*args)
        assert said.code in (2, 5)
        if args[0] != "eval":
            assert (
                f"cannot read the recipe {args[1]}: there is no such file. Did you mean "
                "'quickstart'?" in said.err
            )
            assert said.err.endswith("To write one of your own: selfloop new recipe\n")


def test_a_wheel_has_the_recipes_and_templates(tmp_path: Path) -> None:
    """The package data lists every file; a test of the wheel itself would have to build one."""
    import tomllib
    from fnmatch import fnmatch

    root = Path(__file__).parents[3]
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    for package, folder, found in (
        ("selfloop", root / "selfloop", root.glob("selfloop/recipes/*.yaml")),
        ("selfloop_recipes", root / "recipes", root.glob("recipes/*.*")),
        ("selfloop_plugins.report", root / "plugins/report", root.glob("plugins/report/page/*")),
        (
            "selfloop_plugins.scaffold",
            root / "plugins/scaffold",
            root.glob("plugins/scaffold/templates/*"),
        ),
    ):
        for path in found:
            assert any(
                fnmatch(str(path.relative_to(folder)), pattern) for pattern in data[package]
            ), path
