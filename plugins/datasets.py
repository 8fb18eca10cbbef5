"""`dataset`: questions with all their accepted answers, from the usual closed-book data sets."""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from selfloop import Asking, Component, Question, hookimpl
from selfloop.answers import normalise
from selfloop.errors import RecipeError, did_you_mean
from selfloop.rows import Row, fetch, read


def nq_open(row: Row) -> Question:
    """Natural Questions, open (Kwiatkowski et al. 2019; Lee et al. 2019, arXiv 1906.00300)."""
    return _question(row["question"], "nq_open", _texts(row["answer"]))


def trivia_qa(row: Row) -> Question:
    """TriviaQA (Joshi et al. 2017, arXiv 1705.03551); its test split has no answers."""
    answer = _parsed(row["answer"])
    aliases = [answer["value"] or "", *_texts(answer.get("aliases")), *_texts(answer.get("normalized_aliases"))]
    return _question(row["question"], "trivia_qa", (alias for alias in aliases if alias != "<unk>"))


def web_questions(row: Row) -> Question:
    """WebQuestions (Berant et al. 2013, aclanthology.org/D13-1160)."""
    return _question(row["question"], "web_questions", _texts(row["answers"]))


def popqa(row: Row) -> Question:
    """PopQA (Mallen et al. 2022, arXiv 2212.10511)."""
    answers = row["possible_answers"]
    return _question(row["question"], "popqa", json.loads(answers) if isinstance(answers, str) else answers)


def simpleqa(row: Row) -> Question:
    """SimpleQA (Wei et al. 2024, arXiv 2411.04368); compared like the others, not by the paper's judge."""
    return _question(row["problem"], "simpleqa", [row["answer"] or ""])


@dataclass(frozen=True)
class Hub:
    """Where a data set lies on the Hugging Face hub, the split with answers, and how to read a row."""

    repository: str
    config: str | None
    split: str
    load: Callable[[Row], Question]


SETS: Mapping[str, Hub] = {
    "nq_open": Hub("google-research-datasets/nq_open", None, "validation", nq_open),
    "trivia_qa": Hub("mandarjoshi/trivia_qa", "rc.nocontext", "validation", trivia_qa),
    "web_questions": Hub("stanfordnlp/web_questions", None, "test", web_questions),
    "popqa": Hub("akariasai/PopQA", None, "test", popqa),
    "simpleqa": Hub("basicv8vc/SimpleQA", None, "test", simpleqa),
}


class Dataset:
    """Hands out the questions of a data set in order, each once in a run.

    `name` is nq_open, trivia_qa, web_questions, popqa or simpleqa. With `path` its rows come from a file (.jsonl,
    .json, .csv, .tsv, .parquet), and without `name` their columns say of which form they are; without `path` they
    come from the hub, of `split` (default: the one with answers that is usually measured on). `limit` takes that many
    at random, by `seed`. Rows without an answer that could match (none, or nothing but punctuation) are left out.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        path: Path | None = None,
        split: str = "",
        limit: Annotated[int, Ge(1)] | None = None,
        seed: int = 0,
    ) -> None:
        check_name(name, path)
        hub = SETS[name] if name else None
        if path is not None:
            rows, where = read(path), str(path)
        else:
            assert hub is not None
            rows, where = fetch(hub.repository, hub.config, split or hub.split), hub.repository
        load = (hub or SETS[_form(rows[0], where)]).load
        questions = [q for q in (_loaded(load, row, n, where) for n, row in enumerate(rows, 1)) if q.gold]
        if not questions:
            raise RecipeError(f"{where}: not one of its {len(rows)} rows has an answer to compare with. Give another.")
        if limit is not None and limit < len(questions):
            questions = [questions[i] for i in sorted(random.Random(seed).sample(range(len(questions)), limit))]
        self._questions = questions

    def ask(self, asking: Asking) -> list[Question]:
        """Return the next questions that were not asked yet."""
        had = {*asking.past.questions, *asking.past.dropped}
        return [question for question in self._questions if question.text not in had][: asking.n]


def _loaded(load: Callable[[Row], Question], row: Row, number: int, where: str) -> Question:
    try:
        return load(row)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        columns = ", ".join(map(str, row))
        raise RecipeError(
            f"{where}, row {number}: this is no row of {load.__name__}: {error!r}. Its columns: {columns}. Mend it, or "
            "name another data set."
        ) from error


def _form(row: Row, where: str) -> str:
    """Return which data set's rows look like this one."""
    if "possible_answers" in row:
        return "popqa"
    if "problem" in row:
        return "simpleqa"
    if "answers" in row:
        return "web_questions"
    if "answer" in row:
        return "trivia_qa" if str(row["answer"]).startswith("{") else "nq_open"
    raise RecipeError(
        f"{where}: there are no answers in it, only {', '.join(map(str, row))}. What counts as right stands in "
        f"`answers` or `answer_regex` (your own JSONL), or where one of these has it: {', '.join(SETS)}."
    )


def _question(text: Any, source: str, aliases: Iterable[Any]) -> Question:
    if not (isinstance(text, str) and text.strip()):
        raise ValueError("a question is text")
    kept = [alias for alias in dict.fromkeys(aliases) if normalise(alias)]
    return Question(text.strip(), source, gold=tuple(kept))


def _texts(value: Any) -> list[str]:
    """Return a list of texts; a text that is not a list in JSON is the only one."""
    found = _parsed(value)
    return [found] if isinstance(found, str) else list(found or [])


def _parsed(value: Any) -> Any:
    """Return what a text says in JSON, if it is a list or a mapping there, as it is in CSV files."""
    try:
        return json.loads(value) if isinstance(value, str) and value.startswith(("[", "{")) else value
    except ValueError:
        return value


def check_name(name: str | None, path: Path | None) -> None:
    """Raise for a data set that nobody knows, and where none is named."""
    if name is None and path is None:
        raise RecipeError(f"ask.sources: a dataset needs a `name` ({', '.join(SETS)}) or the `path` of a file.")
    if name is not None and name not in SETS:
        raise RecipeError(f"no data set named {name!r}.{did_you_mean(name, SETS)} Known: {', '.join(SETS)}.")


def check(*, name: str | None = None, path: Path | None = None, **_: Any) -> None:
    """Raise for what can be seen without the hub: an unknown name, a file that cannot be read."""
    check_name(name, path)
    if path is not None:
        Dataset(name=name, path=path)


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    return [Component("dataset", Dataset, doc="questions with gold answers, from a file or the hub", check=check)]
