"""When to decline in a chat: what the base's states say of a question, in place of one chance.

A reply begins with a word that says nothing ("The"), and there the base hardly ever declines. So it
takes more lessons to learn when to decline than to learn the reply, which the model gives already.
These lessons are short: no reply is read or written for them. They also ask the questions in other
words, which the base finds: an unusual wording is not to be taken for an unknown fact.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from selfloop_plugins._decoding.prompting import decline_token, split
from selfloop_plugins._decoding.tasks import Vocabulary
from selfloop_plugins._shared.generation import generate_texts
from selfloop_plugins._shared.prompt_text import one_line
from selfloop_plugins._shared.rewording import distinct_rewordings

from selfloop import Claim, Completion, Message, Question, Request, Sampling
from selfloop.config.prompts import Prompt, is_open
from selfloop.errors import RequestError
from selfloop.protocols import Backend
from selfloop.records import Continuation

from . import readout
from .conversation import Turn, other_form, user_turn
from .tokenized import BEFORE_TURN, Decision, TokenizedExample, places_of
from .training_examples import TrainingExample

# with fewer questions the chances themselves are taught
MIN_QUESTIONS = 40
REPEATS = 2  # of each of these lessons
_REWORDING = Sampling(0.7, top_p=0.95, max_tokens=64, stop=("\n",))


def read_turns(
    model: Any,
    vocabulary: Vocabulary,
    turns: Sequence[Turn],
    reworded: Sequence[str],
    batch_size: int,
) -> tuple[list[Turn], list[TokenizedExample]]:
    """Return the turns with the chances that the readout gives them, and lessons in when to decline
    the `reworded` questions, each in two forms.

    The chance of a turn comes from a readout that has not seen its question.
    """
    by_question = dict[str, Turn]()
    for turn in turns:
        by_question.setdefault(turn.example.question, turn)  # the first is the bare one
    if len(by_question) < MIN_QUESTIONS:
        return list(turns), []

    def states_of(questions: Sequence[str]) -> Any:
        prompts = [_prompt(vocabulary, user_turn(question))[0] for question in questions]
        return readout.states_before_answer(model, prompts, batch_size)

    labels = [turn.p_correct for turn in by_question.values()]
    of_all, of_others = readout.fit(states_of(list(by_question)), labels)
    chances = dict(zip(by_question, of_others, strict=True))
    read = [replace(turn, p_correct=chances[turn.example.question]) for turn in turns]
    lessons = list[TokenizedExample]()
    if reworded:
        known = [turn for turn in turns if turn.p_correct >= 0.5 and turn.holds_answer]
        for number, chance in enumerate(of_all(states_of(reworded))):
            question = reworded[number]
            for messages in (user_turn(question), other_form(number, question, known)):
                lessons.append(_lesson(vocabulary, messages, chance))
    return read, lessons


def decisions_alone(
    examples: Sequence[TokenizedExample], others: Sequence[TokenizedExample]
) -> list[TokenizedExample]:
    """Return the decisions before the replies as lessons by themselves, with those of other
    questions, several times each."""
    places = places_of(examples).get(BEFORE_TURN, [])
    alone = [place.alone(place.example.p_correct) for place in places]
    return [*alone, *others] * REPEATS


def _prompt(vocabulary: Vocabulary, messages: tuple[Message, ...]) -> tuple[tuple[int, ...], int]:
    """Return a turn's prompt in tokens, and the token that begins to decline behind it."""
    token = decline_token(vocabulary, Request(messages))
    prompt, _ = split(vocabulary, Continuation(messages, (token,)))
    return tuple(prompt), token


def _lesson(
    vocabulary: Vocabulary, messages: tuple[Message, ...], chance: float
) -> TokenizedExample:
    """Return a turn in which only the decision is learnt: all else stays as likely as it is."""
    prompt, token = _prompt(vocabulary, messages)
    return TokenizedExample(
        tokens=(*prompt, token),
        answer_start=len(prompt),
        p_correct=chance,
        decisions=(Decision(0, token, BEFORE_TURN),),
        teacher_prompt=prompt,
        num_distilled=1,
    )


def rewordings(
    backend: Backend,
    examples: Sequence[TrainingExample],
    prompt: Callable[..., Prompt],
    seed: int,
) -> list[str]:
    """Return the questions in other words; those without a usable rewording are left out."""
    requests = []
    for number, example in enumerate(examples):
        rendered = prompt("paraphrase", question=one_line(example.question))
        requests.append(
            Request(rendered, _REWORDING, seed=seed + number, open_turn=is_open(rendered))
        )
    results = generate_texts(requests, backend)
    reworded = list[str]()
    for example, texts in zip(examples, results, strict=True):
        if isinstance(texts, RequestError):
            continue
        claim = Claim(Question(example.question, "tune"), Completion(example.answer))
        reworded += distinct_rewordings(claim, texts)
    return reworded
