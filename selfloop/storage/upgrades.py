"""How records and recipes of earlier versions are read.

A run's database says which version its records have (`RECORDS_VERSION` of the selfloop that wrote
them). Upgrade N takes a record of version N to N + 1. A run that is opened to be read is upgraded
in memory, record by record; one that is opened to be written is upgraded on the disk first.

To rename a field or a key, append one entry to `UPGRADES`:

    renaming({"attempt.verdicts.*.score": "confidence", "recipe.ask.topic": "topics"})

An upgrade must do nothing to a record that has the new form already.
"""

import json
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal

from selfloop.config.yaml_source import edited_text
from selfloop.storage.plain_json import parsed

Kind = Literal["attempt", "completion", "adapter", "model", "recipe", "event"]
# changes a record in place; it may be of any kind, and may come from a stranger
Upgrade = Callable[[Kind, Any], None]
# of a key, or, for a value, each new value by the old one
NewName = str | Mapping[str, str]


def renaming(table: Mapping[str, NewName]) -> Upgrade:
    """Return the upgrade that renames keys or values, in the order of the table.

    A path begins with the kind of record. `*` is every item of a list. `name=kind` goes on only
    into a component of that kind: `recipe.detectors.*=combined.least`. The new name is a key's, or
    a mapping of a value's names: `{"recipe.ask.sources.*.kind": {"again": "recheck"}}`, which also
    finds a component that is written as its kind alone.
    """
    rules = [(path.split("."), new_name) for path, new_name in table.items()]

    def upgrade(kind: Kind, record: Any) -> None:
        for (rule_kind, *way), new_name in rules:
            if rule_kind == kind:
                _rename(record, way, new_name)

    return upgrade


# Upgrade N takes records of version N to N + 1; append, never edit.
UPGRADES: tuple[Upgrade, ...] = (
    renaming(
        {
            "attempt.verdicts.*.verifier": "detector",
            "event.event": {"BatchLearnt": "TrainingStep", "Trouble": "ComponentFailed"},
            "recipe.verifiers": "detectors",
            "recipe.demonstrations": "few_shot",
            "recipe.ask.turns": "max_turns",
            "recipe.ask.sources.*.share": "weight",
            "recipe.ask.scorers.*.minimum": "min_score",
            "recipe.answer.careful": "decline_bias",
            "recipe.tuner=lora.keep": "min_kept",
            "recipe.tuner=lora.match": "match_form",
            "recipe.tuner=lora.declined": "decline_share",
            "recipe.critique=contrast.least": "min_samples",
            "recipe.few_shot=own_demonstrations.least": "min_confidence",
            "recipe.ask.scorers.*=balance.least": "min_questions",
            "recipe.detectors.*=combined.least": "min_answers",
            "recipe.detectors.*=question_probe.least": "min_answers",
            "recipe.detectors.*=answer_probe.least": "min_answers",
            "recipe.detectors.*=semantic_entropy_probe.least": "min_answers",
        }
    ),
)
FIRST_VERSION = 1  # of runs whose database names none
RECORDS_VERSION = FIRST_VERSION + len(UPGRADES)


def upgraded(kind: Kind, data: str, version: int) -> str:
    """Return a record as JSON in its present form. Raises ValueError if it is not JSON."""
    record = parsed(data)
    for upgrade in UPGRADES[version - FIRST_VERSION :]:
        upgrade(kind, record)
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False)


def upgraded_event(event: Any) -> Any:
    """Return an event of a run's log in its present form.

    The log has no version, so all upgrades apply.
    """
    for upgrade in UPGRADES:
        upgrade("event", event)
    return event


def upgraded_recipe(path: Path, version: int) -> str:
    """Return the text of a run's recipe with its present keys; comments stay.

    Raises RecipeError if it cannot be read.
    """

    def change(tree: Any) -> None:
        for upgrade in UPGRADES[version - FIRST_VERSION :]:
            upgrade("recipe", tree)

    return edited_text(path, change)


def _rename(part: Any, way: list[str], new_name: NewName) -> None:
    step, *rest = way
    name, _, component = step.partition("=")
    for key in _matching_keys(part, name):
        child = part[key]
        if not rest and isinstance(new_name, str):
            _rename_key(part, key, new_name)
        elif not isinstance(new_name, str) and isinstance(child, str) and rest in ([], ["kind"]):
            # with "kind" left to go, this is a component that is written as its kind alone
            part[key] = new_name.get(child, child)
        elif rest and (not component or _is_component(child, component)):
            _rename(child, rest, new_name)


def _matching_keys(part: Any, name: str) -> Iterable[Any]:
    if name == "*":
        return range(len(part)) if isinstance(part, list) else ()
    return [name] if isinstance(part, dict) and name in part else ()


def _is_component(child: Any, kind: str) -> bool:
    return isinstance(child, dict) and child.get("kind") == kind


def _rename_key(mapping: MutableMapping[str, Any], old: str, new: str) -> None:
    """Give a key its new name in the same place, with the comments that YAML has there."""
    keys = list(mapping)
    value = mapping.pop(old)
    if not hasattr(mapping, "ca"):  # a plain dict
        after = {key: mapping.pop(key) for key in keys[keys.index(old) + 1 :]}
        mapping.update({new: value, **after})
        return
    # ruamel's map keeps the comments apart from the values, by key
    comments = mapping.ca.items
    if old in comments:
        comments[new] = comments.pop(old)
    mapping.insert(keys.index(old), new, value)  # type: ignore[attr-defined]
