"""When to decline in a chat: the chance that the base's states give a question, not its own.

A reply begins with a word that says nothing ("The"), and there the base hardly ever declines. So it
takes more lessons to learn when to decline than to learn the reply, which the model gives already.
These lessons are short: no reply is read or written for them. They also ask the questions in other
words, which the base finds: an unusual wording is not to be taken for an unknown fact.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from selfloop_plugins._decoding.prompting import decline_token, split
from selfloop_plugins._decoding.tasks import Vocabulary
from selfloop_plugins._shared.generation import texts_or_none
from selfloop_plugins._shared.rewording import reword

from selfloop import Claim, Completion, Question, Request
from selfloop.config.prompts import Prompt
from selfloop.protocols import Backend
from selfloop.records import Continuation

from . import readout
from .conversation import Turn, other_form, user_turn
from .tokenized import BEFORE_TURN, Decision, TokenizedExample, places_of
from .training_examples import TrainingExample

# with fewer questions the chances themselves are taught
MIN_QUESTIONS = 40
REPEATS = 2  # of each of these lessons


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
                lessons.append(decision_lesson(vocabulary, messages, chance))
    return read, lessons


def decisions_alone(
    examples: Sequence[TokenizedExample], others: Sequence[TokenizedExample]
) -> list[TokenizedExample]:
    """Return the decisions before the replies as lessons by themselves, with those of other
    questions, several times each."""
    places = places_of(examples).get(BEFORE_TURN, [])
    alone = [place.alone(place.example.p_correct) for place in places]
    return [*alone, *others] * REPEATS


def _prompt(vocabulary: Vocabulary, asked: Prompt) -> tuple[tuple[int, ...], int]:
    """Return a prompt in tokens, and the token that begins to decline behind it."""
    token = decline_token(vocabulary, Request(asked))
    prompt, _ = split(vocabulary, Continuation(asked, (token,)))
    return tuple(prompt), token


def decision_lesson(vocabulary: Vocabulary, asked: Prompt, chance: float) -> TokenizedExample:
    """Return a prompt behind which only the decision is learnt: all else stays as likely as it is.

    `asked` is a text or a conversation.
    """
    prompt, token = _prompt(vocabulary, asked)
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
    claims = [
        Claim(Question(example.question, "tune"), Completion(example.answer))
        for example in examples
    ]
    seeds = range(seed, seed + len(claims))
    results = reword(backend, prompt, claims, seeds)
    return [*chain.from_iterable(map(texts_or_none, results))]
