"""The columns of a file that hold the parts of a question: by usual names, or by the user's."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfloop.data.cells import listed_in
from selfloop.errors import RecipeError, did_you_mean

# usual names, plain (see `plain_name`), the best first
QUESTION = (
    *("question", "questions", "question_text", "query", "problem", "utterance", "prompt", "qtext"),
    *("instruction", "input", "q"),
)
GOLD = (
    *(
        "answers",
        "possible_answers",
        "correct_answers",
        "gold_answers",
        "gold",
        "golds",
        "accepted_answers",
    ),
    *(
        "reference_answers",
        "reference_answer",
        "ground_truths",
        "ground_truth",
        "ground_truth_answers",
    ),
    *("targetvalue", "target_value", "targets", "target", "short_answers"),
    *("expected_answers", "expected_answer", "correct_answer", "best_answer"),
)
MORE_GOLD = ("aliases", "answer_aliases", "normalized_aliases", "best_answer")  # beside the others
ANSWER = ("answer",)
PATTERN = ("answer_regex",)
TOPIC = ("topic",)
IMPOSSIBLE = ("is_impossible",)
# Names under which other programs store a model's answers; only `score` looks for them.
ANSWERED = (
    "answer",
    "response",
    "prediction",
    "predicted_answer",
    "model_answer",
    "generated_answer",
    "completion",
)


@dataclass(frozen=True)
class Columns:
    """The columns that a user names; an empty name is found by itself.

    A dotted path leads into a mapping.
    """

    question: str = ""
    answers: str = ""
    answer: str = ""


def plain_name(name: str) -> str:
    """Return a column's name as it is compared: "Best Answer" and "best_answer" are one."""
    return re.sub(r"[\s_\-]+", "_", name.strip().casefold())


def is_question(name: str, wanted: str = "") -> bool:
    """Return whether a column holds questions: the one that is `wanted`, or by its name."""
    return (
        name == wanted or name == wanted.partition(".")[0]
        if wanted
        else plain_name(name) in QUESTION
    )


def column_named(names: Iterable[str], known: Sequence[str]) -> str:
    """Return the column with the first of the `known` names; an empty string if none has one."""
    by_plain: dict[str, str] = {}
    for name in names:
        by_plain.setdefault(plain_name(name), name)
    return next((by_plain[name] for name in known if name in by_plain), "")


def chosen(names: Collection[str], wanted: str, where: str) -> str:
    """Return the column that a user names. Raises RecipeError if there is none."""
    if wanted in names or wanted.partition(".")[0] in names:
        return wanted
    # the user may write it in another case, or with blanks
    same = [name for name in names if plain_name(name) == plain_name(wanted)]
    if same:
        return same[0]
    listed = ", ".join(names)
    raise RecipeError(
        f"{where}: there is no column {wanted!r:.60}.{did_you_mean(wanted, names)} Its columns: "
        f"{listed:.300}."
    )


def cell(cells: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column in a row, None where it has none. A dotted path is followed into
    mappings.

    Of a list of mappings it is the list of the values at the path in each.
    """
    if not column or column in cells:
        return cells.get(column)
    name, _, rest = column.partition(".")
    return _within(cells.get(name), rest.split(".")) if rest else None


def _within(value: Any, path: Sequence[str]) -> Any:
    if isinstance(value, str):
        value = listed_in(value.strip())  # CSV has a mapping as text
    if isinstance(value, list):
        # "answers.0" is one item; without a number the path goes on in all items
        if path[0].isdecimal():
            place = int(path[0])
            inner = value[place] if place < len(value) else None
            return inner if len(path) == 1 else _within(inner, path[1:])
        return [_follow(item, path) for item in value]
    return _follow(value, path)


def _follow(value: Any, path: Sequence[str]) -> Any:
    if not isinstance(value, Mapping):
        return None
    inner = value.get(path[0])
    return inner if len(path) == 1 else _within(inner, path[1:])
