"""A question in other words: asked of a model, and which of its texts are usable."""

from collections.abc import Callable, Sequence

from selfloop import Claim, Request, Sampling
from selfloop.config.prompts import Prompt, is_open
from selfloop.errors import RequestError
from selfloop.protocols import Backend
from selfloop.text.answers import normalise

from .generation import generate_texts
from .prompt_text import one_line


def reword(
    backend: Backend,
    prompt: Callable[..., Prompt],
    claims: Sequence[Claim],
    seeds: Sequence[int],
    *,
    count: int = 1,
    temperature: float = 0.7,
) -> list[list[str] | RequestError]:
    """Return the usable rewordings of each claim's question, of `count` that are drawn, or why the
    model refused the request.

    `prompt` renders a prompt by its name; each claim has a seed of its own.
    """
    # drawn, so that the rewordings differ
    sampling = Sampling(temperature, top_p=0.95, max_tokens=64, stop=("\n",))
    requests = []
    for claim, seed in zip(claims, seeds, strict=True):
        asked = prompt("paraphrase", question=one_line(claim.question.text))
        requests.append(Request(asked, sampling, n=count, seed=seed, open_turn=is_open(asked)))
    return [
        result if isinstance(result, RequestError) else distinct_rewordings(claim, result)
        for claim, result in zip(claims, generate_texts(requests, backend), strict=True)
    ]


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
