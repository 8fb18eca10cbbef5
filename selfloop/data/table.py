"""From raw rows to questions: columns chosen, duplicates merged, and an account of every row that gave none."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from unicodedata import normalize

from selfloop.data import layouts
from selfloop.data.cells import is_cut_list, is_list, is_nothing, text_of, texts
from selfloop.data.columns import (
    ANSWER,
    ANSWERED,
    GOLD,
    IMPOSSIBLE,
    MORE_GOLD,
    PATTERN,
    QUESTION,
    TOPIC,
    Columns,
    cell,
    chosen,
    named,
    plain,
)
from selfloop.data.raw import Broken, Raw, Row, places
from selfloop.errors import RecipeError
from selfloop.records import Question
from selfloop.text.answers.bounded import checked
from selfloop.text.display import encodable, printable

# What the rows are for. "ask": the model answers, unless a row has an `answer`, which is judged in
# its place. "eval": the model answers, and each row needs a gold answer. "score": each row has an
# answer to be judged.
Use = Literal["ask", "eval", "score"]

# The parts of a question that a column may hold, as a person is told of them.
PARTS = {
    "question": "question",
    "gold": "gold answers",
    "pattern": "gold pattern",
    "answer": "judged in the model's place",
    "topic": "topic",
}
SHOWN = 5  # broken lines that a message names

WITHOUT_QUESTION = "without a question"
WITHOUT_GOLD = "without a gold answer"
MARKED_IMPOSSIBLE = "marked as impossible to answer"
EMPTY = "empty"
HEADER_AGAIN = "the header again"
BROKEN = "broken"


@dataclass(frozen=True)
class LeftOut:
    """How many rows were left out for one reason, and the numbers of the first of them."""

    reason: str
    count: int
    first: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """The questions of a file, and an account of how they came out of its rows.

    `rows` is the number of rows in the file. Each of them is a question, one that was `merged` into
    an earlier question, or `left_out`; `limit` is the size of the random sample that `questions`
    are, None for all. `columns` says which column has which part (see `PARTS`), `others` are the
    columns that come out again.
    """

    where: str
    form: str
    unit: str
    rows: int
    questions: tuple[Question, ...]
    use: Use = "ask"
    layout: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    merged: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    limit: int | None = None

    def sampled(self, limit: int | None, seed: int = 0) -> "Table":
        """Return a table of `limit` questions drawn at random by `seed`, in the order of the file."""
        questions = tuple(sample(self.questions, limit, seed))
        return (
            self
            if len(questions) == len(self.questions)
            else replace(self, questions=questions, limit=limit)
        )

    @property
    def is_plain(self) -> bool:
        """Return whether there is nothing to say: the file is text, and each of its lines is asked as it stands."""
        return self.form == "text" and self.rows == len(self.questions) and not self.notes

    def summary(self) -> str:
        """Return an account of the rows in one to three lines, without a line feed at the end."""
        asked = len(self.questions)
        drawn = " drawn at random" if self.limit else ""
        counts = f"{self.rows:,} row{_s(self.rows)}, {asked:,} question{_s(asked)}{drawn}"
        lines = [f"{self.where}: {self.form}, {counts}. {self._columns_line()}"]
        lost = [
            f"{one.count:,} {one.reason} ({places(self.unit, one.first)})" for one in self.left_out
        ]
        if lost:
            lines.append(f"  left out: {', '.join(lost)}")
        if self.merged:
            lines.append(
                "  merged into an earlier row that asks the same, gold answers united: "
                f"{len(self.merged):,} "
                f"({places(self.unit, self.merged)})"
            )
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(
            printable(line) if not line.startswith("  ") else f"  {printable(line)}"
            for line in lines
        )

    def _columns_line(self) -> str:
        names = PARTS | {"answer": "to be judged"} if self.use == "score" else PARTS
        parts = [f"{column} ({names[part]})" for part, column in self.columns.items()]
        others = ", ".join(self.others[:SHOWN]) + (", ..." if len(self.others) > SHOWN else "")
        return f"Columns: {', '.join(parts)}" + (f"; kept beside them: {others}" if others else "")

    def plain(self) -> dict[str, Any]:
        """Return the account as data, as `eval.json` has it under `data`."""
        return {
            "file": self.where,
            "form": self.form,
            "rows": self.rows,
            "questions": len(self.questions),
            "limit": self.limit,
            "columns": dict(self.columns),
            "left_out": [
                {"reason": one.reason, "rows": one.count, "first": list(one.first)}
                for one in self.left_out
            ],
            "merged": len(self.merged),
            "notes": list(self.notes),
        }


def sample(items: Sequence[Any], limit: int | None, seed: int = 0) -> list[Any]:
    """Return `limit` of the items, drawn at random by `seed` and in their order; all if there are no more."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), limit))]


def key(text: str) -> str:
    """Return a question as it is compared with others: letter case, spacing and the mark at its end do not count."""
    folded = normalize("NFKC", normalize("NFKC", text).casefold())
    return re.sub(r"[\s?？؟.!]+$", "", " ".join(folded.split())) or text


# --- which column is what


class _Parts(NamedTuple):
    """The columns of a file by what they hold; an empty name where there is none."""

    question: str
    gold: tuple[str, ...]
    answer: str
    pattern: str
    topic: str
    impossible: str
    semicolons: bool  # TruthfulQA's own file separates correct answers so

    def used(self) -> set[str]:
        """Return the columns that need not come out again, for the question itself has them."""
        names = (self.question, *self.gold, self.answer, self.pattern, self.topic)
        return {name for name in names if "." not in name}


def _parts(raw: Raw, where: str, use: Use, wanted: Columns) -> _Parts:
    names = raw.columns()
    if not names:
        raise RecipeError(f"{where}: its rows have no columns. Give a file that has some.")
    question = chosen(names, wanted.question, where) if wanted.question else named(names, QUESTION)
    if not question:
        raise RecipeError(
            f"{where}: no column of questions is known among {', '.join(names):.300}. Call it "
            "`question`, or "
            "name it: question_column in the source of a recipe, --question-column for eval and "
            "score."
        )
    answer_names = ANSWERED if use == "score" else ANSWER
    answer = chosen(names, wanted.answer, where) if wanted.answer else named(names, answer_names)
    if wanted.answers:
        gold = [chosen(names, wanted.answers, where)]
    else:
        gold = [named(names, GOLD), *(named(names, [name]) for name in MORE_GOLD)]
    if answer in gold:
        answer = ""
    pattern = named(names, PATTERN)
    takes_answer = use == "eval" and not wanted.answers and not gold[0] and not pattern
    if takes_answer:
        gold, answer = [answer, *gold], ""
    elif use == "eval":
        answer = ""
    gold = [name for name in dict.fromkeys(gold) if name and name != question]
    semicolons = {"best_answer", "correct_answers"} <= {plain(name) for name in names}
    parts = _Parts(
        question,
        tuple(gold),
        answer,
        pattern,
        named(names, TOPIC),
        named(names, IMPOSSIBLE),
        semicolons,
    )
    if use == "eval" and not gold and not pattern:
        raise RecipeError(
            f"{where}: there are no gold answers in it, only {', '.join(names):.300}. Call their "
            "column "
            "`answers`, or name it: answers_column in the source of a recipe, --answers-column "
            "for eval."
        )
    if use == "score" and not answer:
        raise RecipeError(
            f"{where}: there is no column of answers to score, only {', '.join(names):.300}. Call "
            "it `answer`, or name "
            "it: --answer-column NAME."
        )
    return parts


# --- rows to questions


class _Gathered:
    """The questions so far, each once, and the rows that gave none, by reason."""

    def __init__(self) -> None:
        self.questions: dict[tuple[str, str], Question] = {}
        self.left_out: dict[str, list[int]] = {}
        self.merged: list[int] = []
        self.broken: list[Broken] = []
        self.cut_lists: list[int] = []
        self.lists = False

    def add(self, number: int, question: Question) -> None:
        """Take a question, or unite its gold answers with those of an earlier one that asks the same."""
        name = (key(question.text), question.answer)
        earlier = self.questions.get(name)
        if earlier is None:
            self.questions[name] = question
            return
        self.merged.append(number)
        patterns = list(dict.fromkeys(filter(None, (earlier.gold_pattern, question.gold_pattern))))
        self.questions[name] = replace(
            earlier,
            gold=tuple(dict.fromkeys((*earlier.gold, *question.gold))),
            gold_pattern=patterns[0]
            if len(patterns) == 1
            else "|".join(f"(?:{one})" for one in patterns),
            topic=earlier.topic or question.topic,
        )

    def leave_out(self, reason: str, number: int) -> None:
        """Note a row that gives no question."""
        self.left_out.setdefault(reason, []).append(number)


def gathered(
    raw: Raw, where: str, use: Use, wanted: Columns, *, skip_broken: bool, source: str
) -> Table:
    """Return the questions of raw rows. `source` is where the questions say that they come from.

    Raises RecipeError for broken lines (unless `skip_broken` leaves them out), for columns that are
    not there, and where no question comes out.
    """
    got = _Gathered()
    got.broken += raw.broken
    for number in raw.empty:
        got.leave_out(EMPTY, number)
    for number in raw.headers:
        got.leave_out(HEADER_AGAIN, number)
    count = len(raw.rows) + len(raw.broken) + len(raw.empty) + len(raw.headers)
    if not raw.rows:
        if raw.broken:
            raise RecipeError(_refusal(where, raw.unit, raw.broken, count))
        raise RecipeError(f"{where}: there is no row in it. Give a file that has some.")
    try:
        parts = _parts(raw, where, use, wanted)
    except RecipeError:
        if raw.broken and not skip_broken:
            raise RecipeError(_refusal(where, raw.unit, raw.broken, count)) from None
        raise
    for row in raw.rows:
        try:
            _take(got, row, parts, use, source)
        except (ValueError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            got.broken.append(Broken(row.number, why))
    if got.broken and not (skip_broken and got.questions):
        raise RecipeError(_refusal(where, raw.unit, sorted(got.broken), count))
    for broken in got.broken:
        got.leave_out(BROKEN, broken.number)
    left_out = tuple(
        LeftOut(reason, len(rows), tuple(rows[:SHOWN])) for reason, rows in got.left_out.items()
    )
    if not got.questions:
        reasons = ", ".join(
            f"{one.count:,} {one.reason} ({places(raw.unit, one.first)})" for one in left_out
        )
        raise RecipeError(
            f"{where}: not one of its {count:,} rows can be asked: {reasons}. Mend it, or give "
            "another."
        )
    notes = list(raw.notes)
    if got.cut_lists:
        numbers = places(raw.unit, got.cut_lists)
        notes.append(
            f"{len(got.cut_lists):,} gold answers begin like a list and are taken as text "
            f"({numbers})"
        )
    used = parts.used()
    return Table(
        where=where,
        form=raw.form,
        unit=raw.unit,
        rows=count,
        questions=tuple(got.questions.values()),
        layout=raw.layout
        or layouts.named({plain(name): name for name in raw.columns()}, got.lists),
        use=use,
        columns=_taken(parts, got),
        others=tuple(name for name in raw.columns() if name not in used),
        left_out=left_out,
        merged=tuple(got.merged),
        notes=tuple(notes),
    )


def _taken(parts: _Parts, got: _Gathered) -> dict[str, str]:
    """Return which column was taken for which part."""
    gold = [*parts.gold, parts.answer] if got.lists and parts.answer else parts.gold
    is_judged = any(question.answer for question in got.questions.values())
    columns = {
        "question": parts.question,
        "gold": " and ".join(dict.fromkeys(gold)),
        "pattern": parts.pattern,
        "answer": parts.answer if is_judged else "",
        "topic": parts.topic,
    }
    return {part: column for part, column in columns.items() if column}


def _take(got: _Gathered, row: Row, parts: _Parts, use: Use, source: str) -> None:
    """Add the question of a row, or note why it has none.

    Raises ValueError for a row that is broken.
    """
    if all(map(is_nothing, row.cells.values())):
        got.leave_out(EMPTY, row.number)
        return
    text = encodable(text_of(cell(row.cells, parts.question)))
    if not text:
        got.leave_out(WITHOUT_QUESTION, row.number)
        return
    if parts.impossible and cell(row.cells, parts.impossible) in (True, "true", "True", "1", 1):
        got.leave_out(MARKED_IMPOSSIBLE, row.number)
        return
    gold, answer = _answers(got, row, parts)
    pattern = text_of(cell(row.cells, parts.pattern)) if parts.pattern else ""
    if pattern:
        _check_pattern(pattern)
    if use == "score" and not answer:
        raise ValueError(
            'there is no answer to score. Each row is {"question": "...", "answer": "..."}'
        )
    if use == "eval" and not gold and not pattern:
        got.leave_out(WITHOUT_GOLD, row.number)
        return
    topic = encodable(text_of(cell(row.cells, parts.topic))) if parts.topic else ""
    used = parts.used()
    others = {
        name: value
        for name, value in row.cells.items()
        if name not in used and not is_nothing(value)
    }
    columns = encodable(json.dumps(others, ensure_ascii=False, default=str)) if others else ""
    question = Question(
        text,
        source,
        topic,
        tuple(map(encodable, gold)),
        pattern,
        encodable(answer),
        columns=columns,
    )
    got.add(row.number, question)


def _answers(got: _Gathered, row: Row, parts: _Parts) -> tuple[list[str], str]:
    """Return the gold answers of a row, and the answer that is to be judged.

    A list in `answer` is gold.
    """
    gold = list[str]()
    for column in parts.gold:
        value = cell(row.cells, column)
        if is_cut_list(value):
            got.cut_lists.append(row.number)
        got.lists |= plain(column) == "answer" and is_list(value)
        gold += _semicolons(value) if parts.semicolons and isinstance(value, str) else texts(value)
    answer = cell(row.cells, parts.answer) if parts.answer else None
    if not is_nothing(answer) and is_list(answer):
        got.lists = True
        gold += texts(answer)
        answer = None
    return list(dict.fromkeys(gold)), text_of(answer)


def _semicolons(value: str) -> list[str]:
    return [part.strip() for part in value.split(";") if part.strip()]


@lru_cache(maxsize=4096)  # the same pattern stands in many rows, and each takes a while to try
def _check_pattern(pattern: str) -> None:
    try:
        checked(pattern)
    except ValueError as error:
        raise ValueError(f"answer_regex {error}") from error


def _refusal(where: str, unit: str, broken: Sequence[Broken], count: int) -> str:
    """Return the first broken lines, and how many there are."""
    named_lines = [f"{where}, {unit} {one.number}: {one.why:.300}." for one in broken[:SHOWN]]
    more = [f"... and {len(broken) - SHOWN:,} more."] if len(broken) > SHOWN else []
    advice = (
        "Mend them, or leave them out: skip_broken: true in the source of a recipe, --skip-broken "
        "for eval and score."
        if len(broken) < count
        else "Not one is a question."
    )
    return "\n".join(
        [*named_lines, *more, f"Broken: {len(broken):,} of {count:,} {unit}s. {advice}"]
    )


def _s(count: int) -> str:
    return "" if count == 1 else "s"
