"""A recipe by two questions: the model, and the purpose."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TypeVar

import click
from selfloop_plugins import models
from selfloop_plugins._torch.checkpoint import check as check_folder

from selfloop.cli.extras import missing, pip
from selfloop.data import read
from selfloop.errors import RecipeError, SelfloopError, StoppedError, did_you_mean
from selfloop.storage.run_names import fitting
from selfloop.text.display import printable

from . import PURPOSES
from .writing import rendered, write_all

DEFAULT = "smollm2-135m-instruct"
SCRIPTED = "scripted"  # the backend without a model
QUESTIONS = "questions.jsonl"  # the question file that is written beside the recipe
EXAMPLES = """\
{"question": "What is the capital of France?", "answers": ["Paris"]}
{"question": "Which planet is the largest?", "answers": ["Jupiter", "the planet Jupiter"]}
{"question": "Who wrote Hamlet?", "answers": ["William Shakespeare", "Shakespeare"]}
"""
T = TypeVar("T")
# a name on the Hugging Face hub: OWNER/NAME
_HUB = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Choice:
    """A backend and its model, as the recipe names it.

    `extra` is the extra of selfloop that must be installed, `terms` the licence to be accepted.
    """

    kind: str
    model: str
    extra: str = ""
    terms: str = ""


def write_recipe(
    path: Path, model: str | None, purpose: str | None, questions: Path | None
) -> None:
    """Write the recipe, and an example question file if there is none; print the next commands.

    Questions that no argument answers are asked. Raises SelfloopError for a model that cannot be
    had, and for files that exist already.
    """
    if questions and purpose not in (None, "questions"):
        raise click.UsageError(f"--questions is a file to answer, which --for {purpose} does not.")
    if questions and not questions.exists():
        raise RecipeError(
            f"there is no question file {questions}. Without --questions one is written to begin "
            "with."
        )
    if path.exists():
        write_all({path: ""})  # raises, before a person is asked anything
    home = path.parent
    choice = choose_model(model, home) if model is not None else _ask_model(home)
    purpose = purpose or ("questions" if questions else _ask_purpose())
    files = {path: ""}
    if purpose == "questions":
        questions = questions or home / QUESTIONS
        files |= {} if questions.exists() else {questions: EXAMPLES}
    count = EXAMPLES.count("\n")
    if questions and questions.exists():
        count = len(read(questions).questions)
    relative = _path_in_recipe(questions, home) if questions else ""
    values = {"choice": choice, "purpose": purpose, "questions": relative, "count": count}
    files[path] = rendered("recipe.yaml", file=quote(path.name), run=fitting(path.stem), **values)
    write_all(files)
    _print_next_steps(list(files), path, choice, purpose)


def choose_model(model: str, home: Path) -> Choice:
    """Return the backend for `model`, a name, file, folder or hub name.

    Raises RecipeError or ModelError.
    """
    # A name comes before a file, and a file before a name on the hub: `owner/name` may be either.
    path = Path(model).expanduser()
    if not model.strip():
        raise RecipeError(
            "the name of the model is empty. "
            f"Give one ({', '.join(models.KNOWN_MODELS)}), or {SCRIPTED}."
        )
    if model == SCRIPTED:
        return Choice(SCRIPTED, "")
    if model in models.KNOWN_MODELS:
        return Choice("llama_cpp", model, "llamacpp", models.KNOWN_MODELS[model].terms)
    if path.suffix == ".gguf" or path.is_file():
        models.check_model_file(path)
        return Choice("llama_cpp", _path_in_recipe(path, home), "llamacpp")
    if path.is_dir():
        check_folder(model)
        return Choice("hf", str(path.resolve()), "hf")
    if _HUB.fullmatch(model):
        return Choice("hf", model, "hf")
    known = [*models.KNOWN_MODELS, SCRIPTED]
    raise RecipeError(
        f"no model {printable(model)!r}.{did_you_mean(model, known)} Give a name "
        f"({', '.join(models.KNOWN_MODELS)}), a .gguf "
        f"file, a folder or a hub name (OWNER/NAME) for transformers, or {SCRIPTED} for a dry run "
        "without a model."
    )


def _ask_model(home: Path) -> Choice:
    def parse(text: str) -> Choice:
        try:
            return choose_model(text.strip(), home)
        except SelfloopError as error:
            raise click.UsageError(str(error)) from error  # click says it, and asks again

    click.echo(
        f"Which model? A name ({', '.join(models.KNOWN_MODELS)}), a .gguf file, "
        "a folder or hub name for "
        "transformers,"
    )
    click.echo(f"or {SCRIPTED}: no model, a dry run.")
    return _ask_person(lambda: click.prompt("model", default=DEFAULT, value_proc=parse))


def _ask_purpose() -> str:
    click.echo("\nWhat is it for?")
    for name, description in PURPOSES.items():
        click.echo(f"  {name:10} {description}")
    return _ask_person(
        lambda: click.prompt("for", default="knowledge", type=click.Choice(list(PURPOSES)))
    )


def _ask_person(ask: Callable[[], T]) -> T:
    """Return the answer of a person. Raises StoppedError if there is none, or Ctrl-C is pressed."""
    try:
        return ask()
    # RuntimeError is Python's where there is no standard input at all
    except (click.Abort, RuntimeError):
        raise StoppedError(
            "nothing was written. To answer without a terminal: selfloop new recipe --model MODEL "
            "--for knowledge"
        ) from None


def _path_in_recipe(path: Path, home: Path) -> str:
    """Return a path as the recipe in `home` names it.

    It is relative to the recipe if both lie below this folder: the folder may be moved then.
    """
    here = Path.cwd()
    if path.resolve().is_relative_to(here) and home.resolve().is_relative_to(here):
        relative = Path(os.path.relpath(path.resolve(), home.resolve())).as_posix()
        # `~` would be a home folder, and a `:` would end a prefix
        if not relative.startswith("~") and ":" not in relative:
            return relative
    return str(path.resolve())


def _print_next_steps(files: list[Path], path: Path, choice: Choice, purpose: str) -> None:
    terms = " --accept-license" if choice.terms else ""
    click.echo(f"written: {', '.join(printable(str(file)) for file in files)}")
    click.echo(f"  check it:  selfloop check {printable(quote(str(path)))}{terms}")
    click.echo(f"  run it:    selfloop run {printable(quote(str(path)))}{terms}")
    if choice.terms:
        click.echo(
            f"The model comes under terms that --accept-license accepts, once: {choice.terms}"
        )
    for extra in [choice.extra, *(["tune"] if purpose == "decline" else [])]:
        packages = missing(extra)
        if packages:
            click.echo(f"It needs {', '.join(packages)}, not installed yet. Do: {pip(extra)}")
