"""Recipes as the library takes them, and changes of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from selfloop.config.assembly import check as check_components
from selfloop.config.bundled import recipe_file
from selfloop.config.recipe import LoadedRecipe, read
from selfloop.config.yaml_source import override
from selfloop.errors import RecipeError

# A path, the name of a recipe that comes with selfloop, YAML text, or a recipe as data.
RecipeLike = Path | str | Mapping[str, Any]
# As `--set` takes them: a mapping of dotted keys to values, or texts of the form KEY=VALUE.
Changes = Mapping[str, Any] | Sequence[str]
NAMELESS = Path("recipe.yaml")  # the file name of a recipe that is text or data


@dataclass(frozen=True)
class RecipeText:
    """A recipe's file, the folder that its paths are relative to, and its text.

    `base` is None where it is the file's folder. `text` is None where the file holds it.
    """

    path: Path
    base: Path | None = None
    text: str | None = None


def overrides_of(changes: Changes) -> tuple[str, ...]:
    """Return changes of a recipe as texts KEY=VALUE."""
    # A text is a sequence too: of characters, which nobody means.
    if isinstance(changes, str):
        raise TypeError(f"changes are a mapping or a sequence of KEY=VALUE texts, not {changes!r}")
    if isinstance(changes, Mapping):
        return tuple(override(key, value) for key, value in changes.items())
    return tuple(changes)


def located(recipe: RecipeLike) -> RecipeText:
    """Return where a recipe's text is. Raises RecipeError for a file that does not exist.

    A text with a line break is YAML; any other is a path, or the name of a recipe that comes with
    selfloop. Paths in a text or in data are relative to the working directory.
    """
    if isinstance(recipe, Mapping):
        return RecipeText(NAMELESS, text=_yaml(recipe))
    if isinstance(recipe, str) and "\n" in recipe:
        return RecipeText(NAMELESS, text=recipe)
    path, base = recipe_file(Path(recipe))
    return RecipeText(path, base)


def loaded_recipe(recipe: RecipeLike, changes: Changes = ()) -> LoadedRecipe:
    """Return a recipe that can run, with its plugins.

    Raises RecipeError that lists all mistakes.
    """
    source = located(recipe)
    loaded = read(source.path, overrides_of(changes), source.base, text=source.text)
    check_components(loaded)
    return loaded


def check(recipe: RecipeLike, changes: Changes = ()) -> dict[str, Any]:
    """Return a recipe with all its defaults, as data; no model is loaded.

    Raises RecipeError that lists all mistakes, each with its line.
    """
    return loaded_recipe(recipe, changes).recipe.model_dump(mode="json", by_alias=True)


def _yaml(data: Mapping[str, Any]) -> str:
    try:
        # JSON turns paths, tuples and the like into values that YAML has.
        plain = json.loads(json.dumps(dict(data), default=str))
    except TypeError as error:
        raise RecipeError(f"every key of a recipe must be plain text: {error}.") from error
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    # The order in which a user wrote the keys is the order of the run's recipe.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = StringIO()
    yaml.dump(plain, out)
    return out.getvalue()
