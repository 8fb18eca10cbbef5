"""The recipes that come with selfloop: found by name, wherever it is installed."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from selfloop.errors import RecipeError, did_you_mean


@cache
def folder() -> Path:
    """Return where the recipes lie: a package of their own, `recipes/` in the sources."""
    found = find_spec("selfloop_recipes")
    places = found.submodule_search_locations if found else None
    if not places:
        raise RecipeError(
            "the recipes that come with selfloop are not there. Install it again: pip install "
            "selfloop"
        )
    return Path(next(iter(places)))


def names() -> list[str]:
    """Return the names of the recipes, in order."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def bundled(name: str) -> Path:
    """Return the recipe of that name. Raises RecipeError."""
    if name in names():
        return folder() / f"{name}.yaml"
    raise RecipeError(
        f"no recipe named {name!r} comes with selfloop.{did_you_mean(name, names())} {_those()}"
    )


def recipe_file(given: Path) -> tuple[Path, Path | None]:
    """Return the file that is meant, a path or the name of a recipe that comes with selfloop, and
    its paths' folder.

    None is the recipe's own. A path that is set in one that comes with selfloop is the user's,
    unless the recipe has files of its own beside it.
    """
    if given.exists():
        return given, None
    if str(given) in names():
        file = bundled(str(given))
        return file, None if beside(file) else Path.cwd()
    near = did_you_mean(given.stem, names())
    raise RecipeError(f"cannot read the recipe {given}: there is no such file.{near} {_those()}")


def beside(recipe: Path) -> list[Path]:
    """Return the files that a recipe names and that lie beside it."""
    text = recipe.read_text(encoding="utf-8")
    return [
        path
        for path in folder().iterdir()
        if path.suffix not in (".yaml", ".py") and path.name in text
    ]


def _those() -> str:
    return f"These come with selfloop: {', '.join(names())}. To write one of your own: selfloop new recipe"
