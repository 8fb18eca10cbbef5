"""What `ask`, `score` and `eval` share: one round over given questions, by a recipe or by a model alone."""

import json
from pathlib import Path
from typing import Any

DEFAULT = Path(__file__).parent.parent / "recipes" / "default.yaml"


def recipe_for(what: str) -> tuple[Path, tuple[str, ...]]:
    """Return the recipe that `what` is, or the one that comes with selfloop, set to the model that it is."""
    if what.lower().endswith((".yaml", ".yml")):
        return Path(what), ()
    model = str(Path(what).resolve()) if Path(what).is_file() else what
    return DEFAULT, (f"backend.model={json.dumps(model, ensure_ascii=False)}",)


def closed_book(
    what: str, source: dict[str, Any], count: int, overrides: tuple[str, ...], runs: Path, *, name: str, quiet: bool
) -> Path:
    """Let `what` answer the `count` questions of `source` in a new run, and nothing else; return the run's folder."""
    from selfloop.runner import run

    recipe, given = recipe_for(what)
    forced = {
        "rounds": 1,
        "tuner": None,
        "ask.sources": [source],
        "ask.scorers": [],
        "ask.turns": 1,
        "ask.questions": count,
    }
    made = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in forced.items()]
    base = Path.cwd() if given else None  # of a model alone there is no recipe whose folder could be meant
    return run(recipe, (f"name={name}", *given, *overrides, *made), runs, quiet=quiet, base=base)
