"""The recipes that come with selfloop: they are found by name, wherever it is installed."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from selfloop.errors import RecipeError, did_you_mean


@cache
def folder() -> Path:
    """Return the folder of the recipes: a package of its own, `recipes/` in the sources."""
    package = find_spec("selfloop_recipes")
    locations = package.submodule_search_locations if package else None
    if not locations:
        raise RecipeError(
            "the recipes that come with selfloop are missing. Install it again: pip install "
            "selfloop"
        )
    return Path(next(iter(locations)))


def names() -> list[str]:
    """Return the names of the recipes, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def bundled(name: str) -> Path:
    """Return the file of the recipe with this name. Raises RecipeError."""
    if name in names():
        return folder() / f"{name}.yaml"
    raise RecipeError(
        f"no recipe named {name!r} comes with selfloop.{did_you_mean(name, names())} {_list()}"
    )


def recipe_file(recipe: Path) -> tuple[Path, Path | None]:
    """Return a recipe's file, and the folder that its paths are relative to.

    `recipe` is a path, or the name of a recipe that comes with selfloop. The folder is None where
    it is the file's own. Raises RecipeError where there is neither file nor recipe.
    """
    if recipe.exists():
        return recipe, None
    if str(recipe) in names():
        file = bundled(str(recipe))
        # A path that a user sets is relative to the user's folder. The exception is a recipe that
        # has files of its own beside it: those must be found too.
        return file, None if beside(file) else Path.cwd()
    suggestion = did_you_mean(recipe.stem, names())
    raise RecipeError(
        f"cannot read the recipe {recipe}: there is no such file.{suggestion} {_list()}"
    )


def beside(recipe: Path) -> list[Path]:
    """Return the files in the folder of the recipes that a recipe names."""
    text = recipe.read_text(encoding="utf-8")
    others = (path for path in folder().iterdir() if path.suffix not in (".yaml", ".py"))
    return [path for path in others if path.name in text]


def _list() -> str:
    return (
        f"These come with selfloop: {', '.join(names())}. To write one of your own: selfloop new "
        "recipe"
    )
