"""The recipes that come with selfloop: found by name, wherever it is installed."""

from pathlib import Path

from selfloop.errors import RecipeError, did_you_mean

FOLDER = Path(__file__).parent.parent / "recipes"


def names() -> list[str]:
    """Return the names of the recipes, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def bundled(name: str) -> Path:
    """Return the recipe of that name. Raises RecipeError."""
    if name in names():
        return FOLDER / f"{name}.yaml"
    raise RecipeError(f"no recipe named {name!r} comes with selfloop.{did_you_mean(name, names())} {_those()}")


def recipe_file(given: Path) -> tuple[Path, Path | None]:
    """Return the file that is meant, a path or the name of a recipe that comes with selfloop, and its paths' folder.

    None is the recipe's own. One that comes with selfloop names no paths, and a path set in it is the user's.
    """
    if given.exists():
        return given, None
    if str(given) in names():
        return bundled(str(given)), Path.cwd()
    near = did_you_mean(given.stem, names())
    raise RecipeError(f"cannot read the recipe {given}: there is no such file.{near} {_those()}")


def _those() -> str:
    return f"These come with selfloop: {', '.join(names())}. To write one of your own: selfloop new recipe"
