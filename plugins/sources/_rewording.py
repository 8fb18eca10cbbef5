"""Earlier questions in other words, and from the answer's side. `variants` and `again` share it."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from selfloop_plugins._shared.prompt_text import one_line

from selfloop import AskContext, Outcome, Question, Sampling
from selfloop.records import Variant
from selfloop.text.answers import declines, normalise
from selfloop.text.english.forms import entity_span
from selfloop.text.english.rewording import begins_as_question, reverses, rewords
from selfloop.text.patterns import pattern

from ._writing import first_question, reseeded, texts_if_any

# texts drawn for a rewording or a reversal: a small model repeats most questions
TEXTS_PER_QUESTION = 8
_REVERSING = Sampling(0.6, top_p=0.95, max_tokens=40, stop=("\n",))
_REWORDING = Sampling(0.9, top_p=0.95, max_tokens=40, stop=("\n",))
# too many questions have such an answer
_COMMON_ANSWER = pattern(r"yes|no|true|false|none|\d{1,2}|zero|one|two|three")


def reversed_questions(
    context: AskContext, outcomes: Sequence[Outcome], taken: set[str], source: str
) -> list[Question]:
    """Return questions that name the answer and ask for the entity of the question.

    Those that cannot be reversed are left out. `taken` are the normalised texts of all questions
    that were written; it grows.
    """
    reversible = [outcome for outcome in outcomes if _has_telling_answer(outcome)]
    prompts = []
    for outcome in reversible:
        question, answer = one_line(outcome.question.text), one_line(outcome.answer)
        prompts.append(context.prompt("variants_reversed", question=question, answer=answer))
    written = texts_if_any(reseeded(context, "turned"), prompts, _REVERSING, n=TEXTS_PER_QUESTION)
    questions = []
    for outcome, texts in zip(reversible, written, strict=True):
        # the prompt ends in "Which"
        candidates = [f"Which{text}" for text in texts]
        text = _first_new(candidates, taken, partial(is_reversal, outcome))
        if text:
            via = one_line(outcome.answer)
            questions.append(_variant(text, outcome, source, via, "reversed"))
    return questions


def reworded_questions(
    context: AskContext, outcomes: Sequence[Outcome], taken: set[str], source: str
) -> list[Question]:
    """Return each question in other words; those for which the model has none are left out.

    `taken` are the normalised texts of all questions that were written; it grows.
    """
    prompts = [
        context.prompt("paraphrase", question=one_line(outcome.question.text))
        for outcome in outcomes
    ]
    written = texts_if_any(reseeded(context, "reworded"), prompts, _REWORDING, n=TEXTS_PER_QUESTION)
    questions = []
    for outcome, texts in zip(outcomes, written, strict=True):
        candidates = _least_alike_first(outcome.question.text, texts)
        text = _first_new(candidates, taken, partial(is_rewording, outcome))
        if text:
            via = entity_of(outcome.question)
            questions.append(_variant(text, outcome, source, via, "reworded"))
    return questions


def is_reversal(outcome: Outcome, text: str) -> bool:
    """Return whether a question names the answer of an outcome and asks for its entity."""
    question = outcome.question
    return reverses(text, question.text, outcome.answer, entity_of(question))


def is_rewording(outcome: Outcome, text: str) -> bool:
    """Return whether a text asks for the same as the question of an outcome."""
    return rewords(text, outcome.question.text, outcome.answer)


def entity_of(question: Question) -> str:
    """Return the entity of a question, or an empty string."""
    start, end = entity_place(question)
    return question.text[start:end]


def entity_place(question: Question) -> tuple[int, int]:
    """Return where a question's entity stands: start and end; (0, 0) without one.

    A frame, which is the `via` of the blank slate, is not an entity.
    """
    via = "" if question.source == "blank_slate" else question.via
    return entity_span(question.text, via) or (0, 0)


def note_if_new(text: str, taken: set[str]) -> bool:
    """Return whether a question was not written before, and note that it is now."""
    words = normalise(text)
    is_new = words not in taken
    taken.add(words)
    return is_new


def _has_telling_answer(outcome: Outcome) -> bool:
    answer = outcome.answer
    return not declines(answer) and not _COMMON_ANSWER.fullmatch(normalise(answer))


def _variant(text: str, outcome: Outcome, source: str, via: str, variant: Variant) -> Question:
    """Return a question made from that of an outcome."""
    question = outcome.question
    return Question(
        text, source, question.topic, via=via, variant_of=question.text, variant=variant
    )


def _least_alike_first(text: str, others: Iterable[str]) -> list[str]:
    """Return the texts, the one least like `text` first.

    A copy with one word changed tests nothing.
    """
    from rapidfuzz import fuzz

    return sorted(others, key=lambda other: fuzz.ratio(text, one_line(first_question(other))))


def _first_new(texts: Iterable[str], taken: set[str], is_good: Callable[[str], bool]) -> str:
    """Return the first question that is good and new, or an empty string, and note it as taken."""
    for text in texts:
        question = one_line(first_question(text))
        is_question = question.endswith("?") and begins_as_question(question)
        if is_question and is_good(question) and note_if_new(question, taken):
            return question
    return ""
