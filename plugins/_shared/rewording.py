"""Which texts of a model are usable rewordings of a question."""

from collections.abc import Sequence

from selfloop import Claim
from selfloop.text.answers import normalise

from .prompt_text import one_line


def distinct_rewordings(claim: Claim, texts: Sequence[str]) -> list[str]:
    """Return the texts that are other wordings of the claim's question, none twice.

    A text is left out if it is empty, repeats the question or another text (but for case and
    punctuation), names the answer where the question does not, or has no question mark where the
    question has one.
    """
    question = normalise(claim.question.text)
    answer = normalise(claim.answer.text)
    # of two texts with the same words the later one is kept, at the place of the first
    by_words: dict[str, str] = {}
    for text in texts:
        words = normalise(text)
        if words and words != question:
            by_words[words] = one_line(text)
    names_answer = _contains(question, answer)
    is_marked = "?" in claim.question.text
    rewordings = []
    for words, text in by_words.items():
        gives_answer_away = _contains(words, answer) and not names_answer
        lacks_mark = is_marked and "?" not in text
        if not gives_answer_away and not lacks_mark:
            rewordings.append(text)
    return rewordings


def _contains(text: str, phrase: str) -> bool:
    """Return whether the words of `phrase` stand in `text` side by side; both are normalised."""
    return f" {phrase} " in f" {text} "
