"""From raw rows to questions: columns are chosen, duplicates merged, and every row that gave no
question is accounted for."""

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
    column_named,
    plain_name,
)
from selfloop.data.raw import Broken, Raw, Row, places
from selfloop.errors import RecipeError
from selfloop.records import Question
from selfloop.text.answers.bounded import checked
from selfloop.text.display import encodable, printable

# The purpose of the rows. "ask": the model answers, unless a row has an `answer`, which is judged
# in its place. "eval": the model answers, and each row needs a gold answer. "score": each row has
# an answer to be judged.
Use = Literal["ask", "eval", "score"]

# The parts of a question that a column may hold, as a summary calls them.
PARTS = {
    "question": "question",
    "gold": "gold answers",
    "pattern": "gold pattern",
    "answer": "judged in the model's place",
    "topic": "topic",
}
MAX_NUMBERS = 5  # of rows that a message gives for one reason
MAX_COLUMNS = 5  # names of other columns that a summary gives
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
        """Return a table of `limit` questions, in their order, drawn at random by `seed`."""
        questions = tuple(sample(self.questions, limit, seed))
        if len(questions) == len(self.questions):
            return self
        return replace(self, questions=questions, limit=limit)

    @property
    def is_plain(self) -> bool:
        """Return whether a summary would say nothing: each line of a text is asked as it stands."""
        return self.form == "text" and self.rows == len(self.questions) and not self.notes

    def summary(self) -> str:
        """Return an account of the rows in one to three lines, without a line feed at the end."""
        asked = len(self.questions)
        drawn = " drawn at random" if self.limit else ""
        counts = f"{self.rows:,} row{_s(self.rows)}, {asked:,} question{_s(asked)}{drawn}"
        lines = [f"{self.where}: {self.form}, {counts}. {self._columns_line()}"]
        if self.left_out:
            reasons = [_describe_left_out(self.unit, rows) for rows in self.left_out]
            lines.append(f"  left out: {', '.join(reasons)}")
        if self.merged:
            lines.append(
                "  merged into an earlier row that asks the same, gold answers united: "
                f"{len(self.merged):,} ({places(self.unit, self.merged)})"
            )
        lines += [f"  {note}" for note in self.notes]
        # `printable` takes blanks off the beginning of a line
        indented = [f"  {printable(line)}" for line in lines[1:]]
        return "\n".join([printable(lines[0]), *indented])

    def _columns_line(self) -> str:
        names = PARTS | {"answer": "to be judged"} if self.use == "score" else PARTS
        parts = [f"{column} ({names[part]})" for part, column in self.columns.items()]
        others = ", ".join(self.others[:MAX_COLUMNS])
        if len(self.others) > MAX_COLUMNS:
            others += ", ..."
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
                {"reason": rows.reason, "rows": rows.count, "first": list(rows.first)}
                for rows in self.left_out
            ],
            "merged": len(self.merged),
            "notes": list(self.notes),
        }


def _describe_left_out(unit: str, rows: LeftOut) -> str:
    return f"{rows.count:,} {rows.reason} ({places(unit, rows.first)})"


def sample(items: Sequence[Any], limit: int | None, seed: int = 0) -> list[Any]:
    """Return `limit` of the items, drawn at random by `seed` and in their order; all if there are
    no more."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), limit))]


def key(text: str) -> str:
    """Return a question as it is compared with others: without letter case, spacing, and the marks
    at its end."""
    # folding may denormalise a text, so it is normalised twice
    folded = normalize("NFKC", normalize("NFKC", text).casefold())
    return re.sub(r"[\s?？؟.!]+$", "", " ".join(folded.split())) or text


# --- which column has which part


class _Parts(NamedTuple):
    """The column of each part of a question; an empty name where there is none."""

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


def _column_parts(raw: Raw, where: str, use: Use, wanted: Columns) -> _Parts:
    """Return the column of each part.

    Raises RecipeError, with the columns there are, where one that `use` needs is missing.
    """
    names = raw.columns()
    if not names:
        raise RecipeError(f"{where}: its rows have no columns. Give a file that has some.")
    listed = f"{', '.join(names):.300}"
    question = (
        chosen(names, wanted.question, where) if wanted.question else column_named(names, QUESTION)
    )
    if not question:
        raise RecipeError(
            f"{where}: no column of questions is known among {listed}. Call it `question`, or "
            "name it: question_column in the source of a recipe, --question-column for eval and "
            "score."
        )
    gold, answer = _answer_columns(names, where, use, wanted)
    gold = [name for name in dict.fromkeys(gold) if name and name != question]
    pattern = column_named(names, PATTERN)
    if use == "eval" and not gold and not pattern:
        raise RecipeError(
            f"{where}: there are no gold answers in it, only {listed}. Call their column "
            "`answers`, or name it: answers_column in the source of a recipe, --answers-column "
            "for eval."
        )
    if use == "score" and not answer:
        raise RecipeError(
            f"{where}: there is no column of answers to score, only {listed}. Call it `answer`, "
            "or name it: --answer-column NAME."
        )
    return _Parts(
        question=question,
        gold=tuple(gold),
        answer=answer,
        pattern=pattern,
        topic=column_named(names, TOPIC),
        impossible=column_named(names, IMPOSSIBLE),
        semicolons={"best_answer", "correct_answers"} <= set(map(plain_name, names)),
    )


def _answer_columns(
    names: Sequence[str], where: str, use: Use, wanted: Columns
) -> tuple[list[str], str]:
    """Return the columns of gold answers, and the one of answers to judge; empty names for those
    that are missing."""
    # other programs call a model's answers many things, which mean gold elsewhere
    answer_names = ANSWERED if use == "score" else ANSWER
    answer = (
        chosen(names, wanted.answer, where) if wanted.answer else column_named(names, answer_names)
    )
    if wanted.answers:
        gold = [chosen(names, wanted.answers, where)]
    else:
        gold = [column_named(names, GOLD)]
        for name in MORE_GOLD:
            gold.append(column_named(names, [name]))
    if answer in gold:
        answer = ""
    if use != "eval":
        return gold, answer
    # nothing is judged in the model's place; `answer` is gold where nothing else is
    if not wanted.answers and not gold[0] and not column_named(names, PATTERN):
        gold.insert(0, answer)
    return gold, ""


# --- rows to questions


class _Questions:
    """The questions so far, each once, and the rows that gave none, by reason."""

    def __init__(self, raw: Raw) -> None:
        self.by_key: dict[tuple[str, str], Question] = {}
        self.left_out: dict[str, list[int]] = {}
        self.merged: list[int] = []
        self.broken: list[Broken] = list(raw.broken)
        self.cut_lists: list[int] = []
        self.has_answer_lists = False  # in the column `answer`
        for number in raw.empty:
            self.leave_out(EMPTY, number)
        for number in raw.headers:
            self.leave_out(HEADER_AGAIN, number)

    def add(self, number: int, question: Question) -> None:
        """Take a question, or unite its gold answers with those of an earlier one that asks the
        same."""
        # the same question with another answer to judge is another row
        name = (key(question.text), question.answer)
        earlier = self.by_key.get(name)
        if earlier is None:
            self.by_key[name] = question
            return
        self.merged.append(number)
        self.by_key[name] = replace(
            earlier,
            gold=tuple(dict.fromkeys((*earlier.gold, *question.gold))),
            gold_pattern=_united_patterns(earlier.gold_pattern, question.gold_pattern),
            topic=earlier.topic or question.topic,
        )

    def leave_out(self, reason: str, number: int) -> None:
        """Note a row that gives no question."""
        self.left_out.setdefault(reason, []).append(number)

    def left_out_rows(self) -> tuple[LeftOut, ...]:
        """Return the rows that gave no question, by reason."""
        counts = []
        for reason, numbers in self.left_out.items():
            counts.append(LeftOut(reason, len(numbers), tuple(numbers[:MAX_NUMBERS])))
        return tuple(counts)


def _united_patterns(*patterns: str) -> str:
    """Return a pattern that matches where any of these does; empty ones do not count."""
    different = list(dict.fromkeys(filter(None, patterns)))
    if len(different) == 1:
        return different[0]
    return "|".join(f"(?:{pattern})" for pattern in different)


def questions_table(
    raw: Raw, where: str, use: Use, wanted: Columns, *, skip_broken: bool, source: str
) -> Table:
    """Return the questions of raw rows. `source` is where the questions say that they come from.

    Raises RecipeError for broken lines (unless `skip_broken` leaves them out), for columns that are
    not there, and where no question comes out.
    """
    count = len(raw.rows) + len(raw.broken) + len(raw.empty) + len(raw.headers)
    parts = _parts_or_refusal(raw, where, use, wanted, skip_broken, count)
    questions = _read_rows(raw, parts, use, source)
    if questions.broken and not (skip_broken and questions.by_key):
        raise RecipeError(_refusal(where, raw.unit, sorted(questions.broken), count))
    for broken in questions.broken:
        questions.leave_out(BROKEN, broken.number)
    left_out = questions.left_out_rows()
    if not questions.by_key:
        reasons = ", ".join(_describe_left_out(raw.unit, rows) for rows in left_out)
        raise RecipeError(
            f"{where}: not one of its {count:,} rows can be asked: {reasons}. Mend it, or give "
            "another."
        )
    used = parts.used()
    names = raw.columns()
    by_plain_name = {plain_name(name): name for name in names}
    return Table(
        where=where,
        form=raw.form,
        unit=raw.unit,
        rows=count,
        questions=tuple(questions.by_key.values()),
        layout=raw.layout or layouts.layout_of(by_plain_name, questions.has_answer_lists),
        use=use,
        columns=_columns_by_part(parts, questions),
        others=tuple(name for name in names if name not in used),
        left_out=left_out,
        merged=tuple(questions.merged),
        notes=tuple(_notes(raw, questions)),
    )


def _parts_or_refusal(
    raw: Raw, where: str, use: Use, wanted: Columns, skip_broken: bool, count: int
) -> _Parts:
    """Return the column of each part.

    Raises RecipeError, for broken lines before missing columns: they may be why these are missing.
    """
    if not raw.rows:
        if raw.broken:
            raise RecipeError(_refusal(where, raw.unit, raw.broken, count))
        raise RecipeError(f"{where}: there is no row in it. Give a file that has some.")
    try:
        return _column_parts(raw, where, use, wanted)
    except RecipeError:
        if raw.broken and not skip_broken:
            raise RecipeError(_refusal(where, raw.unit, raw.broken, count)) from None
        raise


def _read_rows(raw: Raw, parts: _Parts, use: Use, source: str) -> _Questions:
    """Return the questions of all rows, and those that are broken."""
    questions = _Questions(raw)
    for row in raw.rows:
        try:
            _take_row(questions, row, parts, use, source)
        except RecursionError:
            questions.broken.append(Broken(row.number, "it is nested too deeply"))
        except ValueError as error:
            questions.broken.append(Broken(row.number, str(error)))
    return questions


def _notes(raw: Raw, questions: _Questions) -> list[str]:
    """Return notes for people on how the rows were read."""
    notes = list(raw.notes)
    cut = questions.cut_lists
    if cut:
        notes.append(
            f"{len(cut):,} gold answers begin like a list and are taken as text "
            f"({places(raw.unit, cut)})"
        )
    return notes


def _columns_by_part(parts: _Parts, questions: _Questions) -> dict[str, str]:
    """Return which column was taken for which part."""
    gold = list(parts.gold)
    if questions.has_answer_lists and parts.answer:
        gold.append(parts.answer)
    is_judged = any(question.answer for question in questions.by_key.values())
    columns = {
        "question": parts.question,
        "gold": " and ".join(dict.fromkeys(gold)),
        "pattern": parts.pattern,
        "answer": parts.answer if is_judged else "",
        "topic": parts.topic,
    }
    return {part: column for part, column in columns.items() if column}


def _take_row(questions: _Questions, row: Row, parts: _Parts, use: Use, source: str) -> None:
    """Add the question of a row, or note why it has none.

    Raises ValueError for a row that is broken.
    """
    if all(map(is_nothing, row.cells.values())):
        questions.leave_out(EMPTY, row.number)
        return
    text = encodable(text_of(cell(row.cells, parts.question)))
    if not text:
        questions.leave_out(WITHOUT_QUESTION, row.number)
        return
    if parts.impossible and cell(row.cells, parts.impossible) in (True, "true", "True", "1", 1):
        questions.leave_out(MARKED_IMPOSSIBLE, row.number)
        return
    gold, answer = _answers(questions, row, parts)
    pattern = text_of(cell(row.cells, parts.pattern)) if parts.pattern else ""
    if pattern:
        _check_pattern(pattern)
    if use == "score" and not answer:
        raise ValueError(
            'there is no answer to score. Each row is {"question": "...", "answer": "..."}'
        )
    if use == "eval" and not gold and not pattern:
        questions.leave_out(WITHOUT_GOLD, row.number)
        return
    question = Question(
        text,
        source,
        encodable(text_of(cell(row.cells, parts.topic))) if parts.topic else "",
        tuple(map(encodable, gold)),
        pattern,
        encodable(answer),
        columns=_other_columns(row, parts),
    )
    questions.add(row.number, question)


def _other_columns(row: Row, parts: _Parts) -> str:
    """Return the cells that are no part of the question, as JSON; an empty string without any."""
    used = parts.used()
    others = {}
    for name, value in row.cells.items():
        if name not in used and not is_nothing(value):
            others[name] = value
    return encodable(json.dumps(others, ensure_ascii=False, default=str)) if others else ""


def _answers(questions: _Questions, row: Row, parts: _Parts) -> tuple[list[str], str]:
    """Return the gold answers of a row, and the answer that is to be judged.

    A list in `answer` is gold.
    """
    gold = list[str]()
    for column in parts.gold:
        value = cell(row.cells, column)
        if is_cut_list(value):
            questions.cut_lists.append(row.number)
        questions.has_answer_lists |= plain_name(column) == "answer" and is_list(value)
        gold += _semicolons(value) if parts.semicolons and isinstance(value, str) else texts(value)
    answer = cell(row.cells, parts.answer) if parts.answer else None
    if not is_nothing(answer) and is_list(answer):
        questions.has_answer_lists = True
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
    lines = [f"{where}, {unit} {row.number}: {row.why:.300}." for row in broken[:MAX_NUMBERS]]
    if len(broken) > MAX_NUMBERS:
        lines.append(f"... and {len(broken) - MAX_NUMBERS:,} more.")
    advice = "Not one is a question."
    if len(broken) < count:
        advice = (
            "Mend them, or leave them out: skip_broken: true in the source of a recipe, "
            "--skip-broken for eval and score."
        )
    lines.append(f"Broken: {len(broken):,} of {count:,} {unit}s. {advice}")
    return "\n".join(lines)


def _s(count: int) -> str:
    return "" if count == 1 else "s"
