"""Thoughts that a model marks and writes before its answer ("<think> ... </think>"), and the answer
after them.

A stop such as the end of a line would cut such a text off within its thought. So the model first
ends the thought, and then answers after it, as it answers everything else: tokens and
log-probabilities are the answer's own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from selfloop.config.prompts import continued, is_open
from selfloop.records import Completion, Request

Drawn = tuple[Request, Completion]
# one completion each, or None where there is none
Generate = Callable[[list[Request]], list[Completion | None]]

_NAME = (
    r"(?:(?:inner|chain)[_ ]?(?:of[_ ]?)?)?"
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflect(?:ion)?|scratch_?pad|analysis|monologue)"
)
_OPENING = re.compile(
    rf"<(?:\w+:)?{_NAME}>|\[{_NAME}\]|◁{_NAME}▷|<\|(?:begin|start)_(?:of_)?{_NAME}\|>"
    r"|<\|channel\|>(?:analysis|commentary)(?:<\|message\|>)?",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    rf"</(?:\w+:)?{_NAME}>|\[/{_NAME}\]|◁/{_NAME}▷|<\|end_(?:of_)?{_NAME}\|>"
    r"|<\|channel\|>final(?:<\|message\|>)?",
    re.IGNORECASE,
)
_CUT_OPENING = re.compile(rf"[<\[◁]\|?(?:\w+[_:])*{_NAME}\|?", re.IGNORECASE)
# A label that a model writes before its answer, as the prompt does before others.
LABEL = re.compile(
    r"[\s#>*_•-]*\b(?:(?:final|corrected|correct|short|best|your|my|the)\s+)*"
    r"(?:answers?|response|reply|output|result|assistant|a|antwort|respuesta|réponse|resposta|risposta|ответ)"
    r"(?:\s+is)?[\s*_]*[:=][\s*_]*|\s*(?:答案?|回答|答え)\s*:\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Thought:
    """A thought that a text begins with: its opening mark, the text up to its end, and the text
    after it, if it has ended.

    `mark` is empty where only the closing mark is there: the prompt opened the thought.
    """

    mark: str
    text: str
    answer: str | None


def thought(text: str) -> Thought | None:
    """Return the thought that a text begins with, or None.

    The answer follows the last closing mark.
    """
    label = LABEL.match(text)
    start = text[label.end() :] if label else text
    opening = _OPENING.match(start.lstrip(" \t\r\n\"'`*"))
    last = max(_CLOSING.finditer(text), key=re.Match.start, default=None)
    if opening is None and last is None:
        cut_off = _CUT_OPENING.fullmatch(text.strip())
        return Thought(cut_off[0], text, None) if cut_off else None
    mark = opening[0] if opening else ""
    if last is None:
        return Thought(mark, text, None)
    answer = text[last.end() :].lstrip()
    next_opening = _OPENING.match(answer)
    if next_opening:  # another thought follows the first
        return Thought(next_opening[0], text, None)
    return Thought(mark, text[: last.end()], answer)


def trailing(prompt: str) -> int | None:
    """Return where the thought begins that a prompt ends in, opened or just ended; or None."""
    opening = max(_OPENING.finditer(prompt), key=re.Match.start, default=None)
    if opening is None:
        return None
    begun = thought(prompt[opening.start() :])
    return opening.start() if begun and not begun.answer else None


def closing(mark: str) -> str:
    """Return the mark that ends a thought which an opening mark began: "</think>" for "<think>"."""
    if mark.casefold().startswith("<|channel|>"):
        return "<|channel|>final<|message|>"
    prefix = re.match(r"<\|(?:begin|start)_", mark, re.IGNORECASE)
    if prefix:
        end = "END" if mark[2].isupper() else "end"
        return f"<|{end}_{mark[prefix.end() :]}"
    return f"{mark[0]}/{mark[1:]}"


def without_thought(text: str) -> str:
    """Return the text after the thought that a text begins with.

    A text without an ended thought stays as it is.
    """
    begun = thought(text)
    return text if begun is None or begun.answer is None else begun.answer


def answered(
    drawn: Sequence[Drawn], generate: Generate, seed: Callable[[Request, int], int], limit: int
) -> list[Completion]:
    """Return the completions, each with the answer in place of a thought that it begins with.

    `drawn` are completions with the requests they came from. `limit` is how many tokens a thought
    may take to its end; a longer one stays an opened thought. `seed` depends on a request and the
    number of its sample.
    """
    results = [completion for _, completion in drawn]
    begun: dict[int, Thought] = {}  # by the place of the completion
    for i, completion in enumerate(results):
        first_thought = thought(completion.text)
        if first_thought:
            begun[i] = first_thought
    texts = _ended(begun, drawn, generate, seed, limit)
    requests = list[Request]()
    for i, text in texts.items() if limit else ():
        request = _after(*drawn[i], text, seed)
        # The model parts thought and answer by lines of its own: where a prompt ends in some,
        # tokens are others.
        requests.append(replace(request, sampling=replace(request.sampling, skip_blank=True)))
    answers = generate(requests) if requests else [None] * len(texts)
    for (i, text), answer in zip(texts.items(), answers, strict=True):
        completion, written_answer = results[i], begun[i].answer
        if answer is not None:
            results[i] = replace(answer, sample=completion.sample, thought=text)
        elif written_answer is not None:
            # the log-probabilities are those of the thought too: of no use
            results[i] = replace(
                completion,
                text=written_answer,
                tokens=(),
                logprobs=(),
                entropies=None,
                margin=None,
                thought=text,
            )
    return results


def _ended(
    begun: Mapping[int, Thought],
    drawn: Sequence[Drawn],
    generate: Generate,
    seed: Callable[[Request, int], int],
    limit: int,
) -> dict[int, str]:
    """Return the text of each thought that has ended, or that the model ends within `limit` tokens.

    The keys are the places of the completions.
    """
    texts: dict[int, str] = {}
    still_open: list[int] = []
    for i, started in begun.items():
        if started.answer is not None:
            texts[i] = started.text
        elif limit:
            still_open.append(i)
    requests = list[Request]()
    for i in still_open:
        request, completion = drawn[i]
        going_on = _after(request, completion, completion.text, seed)
        ending = replace(
            request.sampling, stop=(closing(begun[i].mark),), max_tokens=limit, decline_bias=0.0
        )
        requests.append(replace(going_on, sampling=ending, entropy=False))
    rests = generate(requests) if requests else []
    for i, rest in zip(still_open, rests, strict=True):
        if rest is not None and rest.finish == "stop":
            texts[i] = drawn[i][1].text + rest.text + closing(begun[i].mark)
    return texts


def _after(
    request: Request, completion: Completion, text: str, seed: Callable[[Request, int], int]
) -> Request:
    """Return the request for the text after `text`, which the model has written already."""
    prompt = continued(request.prompt, text)
    number = seed(request, completion.sample)
    return replace(request, prompt=prompt, n=1, skip=(), seed=number, open_turn=is_open(prompt))
