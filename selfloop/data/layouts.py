"""The nested files of data sets as their authors publish them, flattened to a row a question."""

from collections.abc import Iterator, Mapping
from typing import Any

from selfloop.data.raw import Broken, Cells, Raw, Row

# where TriviaQA's answers were found, which no closed-book question needs
_PAGES = {"EntityPages", "SearchResults"}


def flattened(document: Any) -> Raw | None:
    """Return the rows of TriviaQA's or SQuAD's own file, None for anything else."""
    if not isinstance(document, Mapping):
        return None
    trivia, squad = document.get("Data"), document.get("data")
    if isinstance(trivia, list) and any(
        isinstance(item, Mapping) and "Question" in item for item in trivia
    ):
        return _layout_rows("trivia_qa", "TriviaQA's JSON", _trivia_qa(trivia))
    if isinstance(squad, list) and any(
        isinstance(item, Mapping) and "paragraphs" in item for item in squad
    ):
        return _layout_rows("squad", "SQuAD's JSON", _squad(squad))
    return None


def _layout_rows(layout: str, form: str, items: Iterator[Cells | str]) -> Raw:
    raw = Raw(form, "row", layout=layout)
    for number, item in enumerate(items, 1):
        if isinstance(item, str):
            raw.broken.append(Broken(number, item))
        else:
            raw.rows.append(Row(number, item))
    return raw


def _trivia_qa(items: list[Any]) -> Iterator[Cells | str]:
    """Yield the rows of TriviaQA, rc and unfiltered; its test files have no `Answer`.

    Joshi et al. 2017, arXiv 1705.03551.
    """
    for item in items:
        if not isinstance(item, Mapping):
            yield "this is no question of TriviaQA"
            continue
        yield {name: value for name, value in item.items() if name not in _PAGES}


def _squad(articles: list[Any]) -> Iterator[Cells | str]:
    """Yield the questions of SQuAD 1 and 2, which are in paragraphs of articles.

    Rajpurkar et al. 2016 and 2018, arXiv 1606.05250 and 1806.03822.
    """
    for article in articles:
        paragraphs = article.get("paragraphs") if isinstance(article, Mapping) else None
        if not isinstance(paragraphs, list):
            yield "this is no article of SQuAD: it has no list `paragraphs`"
            continue
        for paragraph in paragraphs:
            yield from _squad_questions(article, paragraph)


def _squad_questions(article: Cells, paragraph: Any) -> Iterator[Cells | str]:
    questions = paragraph.get("qas") if isinstance(paragraph, Mapping) else None
    if not isinstance(questions, list):
        yield "this is no paragraph of SQuAD: it has no list `qas`"
        return
    for question in questions:
        if isinstance(question, Mapping):
            about = {"title": article.get("title"), "context": paragraph.get("context")}
            yield {**question, **about}
        else:
            yield "this is no question of SQuAD"


def layout_of(columns: Mapping[str, str], lists: bool) -> str:
    """Return which data set has columns of these (plain) names, an empty string for none that is
    known.

    `lists` says whether the column `answer` holds lists.
    """
    names = set(columns)
    if {"utterance", "targetvalue"} <= names or names == {"url", "question", "answers"}:
        return "web_questions"
    if "possible_answers" in names:
        return "popqa"
    if {"problem", "answer"} <= names:
        return "simpleqa"
    if {"question", "best_answer", "correct_answers"} <= names:
        return "truthful_qa"
    if {"question", "answer"} <= names and lists:
        return "trivia_qa" if {"question_id", "questionid"} & names else "nq_open"
    return ""
