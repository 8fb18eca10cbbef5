"""Who answers: a recipe, a model alone, or a run's model with the adapter it was tuned to last."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from selfloop.api.recipes import RecipeLike, located
from selfloop.api.runs import Run
from selfloop.config.bundled import names, recipe_file
from selfloop.config.yaml_source import override
from selfloop.storage.run_folder import RunFolder
from selfloop.storage.store import open_store

# A model's name or file, any recipe, a run, or the path of a run's folder.
ModelLike = RecipeLike | Run
DEFAULT = Path(__file__).parent.parent / "recipes" / "default.yaml"
YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Answerer:
    """A recipe with overrides, and the state that a run of it begins with.

    `base` is the folder that the recipe's paths are relative to, None for its own; `text` is the
    recipe if no file holds it; `pinned` are the `model` and the `adapter` of an earlier run.
    """

    recipe: Path
    overrides: tuple[str, ...] = ()
    base: Path | None = None
    pinned: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None


def answerer(model: ModelLike) -> Answerer:
    """Return who answers for a model, a recipe or a run.

    A model alone is run by the recipe `default.yaml`. Raises StoreError for a run that has not
    begun, RecipeError for a recipe that does not exist.
    """
    if isinstance(model, Run):
        return _of_run(model.folder)
    if isinstance(model, Mapping) or "\n" in str(model):
        source = located(model)
        return Answerer(source.path, base=source.base, text=source.text)
    # A text can be four things. The order is from the most explicit to the least.
    name = str(model)
    path = Path(model)
    if name.lower().endswith(YAML):
        return Answerer(recipe_file(path)[0])
    if RunFolder(path).is_run:
        return _of_run(path)
    # A model's file. It is resolved, for the run's recipe is in another folder.
    if path.is_file():
        name = str(path.resolve())
    elif name in names():
        file, base = recipe_file(path)
        return Answerer(file, base=base)
    # A model alone has no recipe's folder: paths in later overrides mean the user's folder.
    return Answerer(DEFAULT, (override("backend.model", name),), Path.cwd())


def _of_run(folder: Path) -> Answerer:
    with closing(open_store(folder, write=False)) as store:
        pinned: dict[str, Any] = {"model": store.model()}
        # The run holds a copy of its recipe, whose paths are relative to the original's folder.
        base = store.meta().get("base", ".")
        adapter = store.history().adapter
    if adapter:
        # Adapters are stored relative to their run; the new run is in another folder.
        absolute = replace(adapter, path=str(folder.resolve() / adapter.path))
        pinned["adapter"] = asdict(absolute)
    return Answerer(RunFolder(folder).recipe, (), Path(base), pinned)
