"""Where a chat model decides whether to decline, and with which chance that it is right.

The chance is the one that the base's states give (`readout.py`), by a readout that has not seen
that question: before a reply the chance of the question, behind it that of the reply. Before it,
the decisions are also those to the same questions in other words, which the base finds: an unusual
wording is not to be taken for an unknown fact. They need no reply, so none is read or written for
them.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from selfloop_plugins._decoding.prompting import decline_token, split
from selfloop_plugins._decoding.tasks import Vocabulary
from selfloop_plugins._shared.generation import texts_or_none
from selfloop_plugins._shared.rewording import reword

from selfloop import Claim, Completion, Message, Question, Request
from selfloop.config.prompts import Prompt
from selfloop.protocols import Backend
from selfloop.records import Continuation
from selfloop.text.answers import declines

from . import readout
from .conversation import (
    SYSTEM_PROMPT,
    Turn,
    before_mark,
    other_form,
    prompt_and_reply,
    user_turn,
)
from .rank_one import Still, TurnDecision
from .tokenized import TokenizedExample, Tokens
from .training_examples import TrainingExample

# with fewer questions the chances themselves decide
MIN_QUESTIONS = 40
# texts of each kind, at most, where the model is to go on as it does
STILL_TEXTS = 128
STILL_STRIDE = 4  # of a neutral text every fourth position
# of replies that may be marked, at most, and of each every second of so many last positions
MARKED_TEXTS, BEFORE_THE_END = 256, 12
SENTENCE_ENDS = (b".", b"!", b"?", b":")

_SYSTEM_TURN = Message("system", SYSTEM_PROMPT)

Item = TypeVar("Item")


def turn_decisions(
    model: Any,
    vocabulary: Vocabulary,
    turns: Sequence[Turn],
    reworded: Sequence[tuple[str, str]],
    batch_size: int,
) -> list[TurnDecision]:
    """Return the decisions before the replies of some turns, and before those to their questions in
    other words, bare and in another form by turns.

    `reworded` has pairs: a question of the turns, and its other words. Left out are turns whose
    reply begins as a refusal does: there the token does not tell which it is.
    """
    chances = _chances(model, vocabulary, turns, batch_size)
    groups = {question: number for number, question in enumerate(chances)}
    decisions = []
    for turn in turns:
        question = turn.example.question
        prompt, token = prompt_and_token(vocabulary, turn.messages)
        if turn.reply.tokens[:1] != (token,):
            chance, group = chances[question], groups[question]
            decisions.append(TurnDecision(prompt, token, chance, turn.p_correct, group))
    known = [turn for turn in turns if turn.p_correct >= 0.5 and turn.holds_answer]
    readable = [pair for pair in reworded if pair[0] in chances]
    for number, (question, other_words) in enumerate(readable):
        is_bare = number % 2 == 0
        messages = user_turn(other_words) if is_bare else other_form(number, other_words, known)
        prompt, token = prompt_and_token(vocabulary, messages)
        decisions.append(TurnDecision(prompt, token, chances[question], None, groups[question]))
    return decisions


def reply_decisions(
    model: Any, vocabulary: Vocabulary, turns: Sequence[Turn], batch_size: int
) -> list[TurnDecision]:
    """Return the decisions behind the replies of some turns: whether to mark them.

    Left out are replies that decline, and those that cannot be marked (`before_mark`).
    """
    group_of = dict[str, int]()
    texts, tokens, p_correct, groups = [], [], [], []
    for turn in turns:
        decided = None if declines(turn.reply.text) else before_mark(vocabulary, turn)
        if decided is not None:
            text, mark = decided
            texts.append(text)
            tokens.append(mark[0])
            p_correct.append(turn.p_correct)
            groups.append(group_of.setdefault(turn.example.question, len(group_of)))
    chances = _read_chances(model, texts, p_correct, groups, batch_size)
    return list(map(TurnDecision, texts, tokens, chances, p_correct, groups))


def _chances(
    model: Any, vocabulary: Vocabulary, turns: Sequence[Turn], batch_size: int
) -> dict[str, float]:
    """Return the chance of each question that the model answers it rightly."""
    p_correct = dict[str, float]()
    for turn in turns:
        p_correct.setdefault(turn.example.question, turn.p_correct)  # the first is the bare one
    prompts = [prompt_and_token(vocabulary, user_turn(question))[0] for question in p_correct]
    groups = range(len(prompts))
    chances = _read_chances(model, prompts, list(p_correct.values()), groups, batch_size)
    return dict(zip(p_correct, chances, strict=True))


def _read_chances(
    model: Any,
    texts: Sequence[Tokens],
    p_correct: Sequence[float],
    groups: Sequence[int],
    batch_size: int,
) -> list[float]:
    """Return the chance at the end of each text, by a readout of the texts of other groups."""
    if len(set(groups)) < MIN_QUESTIONS:
        return [readout.clipped(chance) for chance in p_correct]
    states = readout.states_before_answer(model, texts, batch_size)
    _, by_others = readout.fit(states, p_correct, groups)
    return by_others


def prompt_and_token(vocabulary: Vocabulary, asked: Prompt) -> tuple[Tokens, int]:
    """Return a text or a conversation in tokens, and the token that begins to decline behind it."""
    token = decline_token(vocabulary, Request(asked))
    prompt, _ = split(vocabulary, Continuation(asked, (token,)))
    return tuple(prompt), token


def still_texts(
    vocabulary: Vocabulary,
    requests: Sequence[Turn],
    quiz: Sequence[TokenizedExample],
    replies: Sequence[TokenizedExample],
    neutral_texts: Sequence[Tokens],
    seed: int,
    decisions: Sequence[TurnDecision] = (),
) -> tuple[list[Still], list[Still]]:
    """Return where the model is to go on as it does: before its replies to requests for no fact,
    and elsewhere: in answers of the quiz form, behind the first token of replies, in neutral texts.
    Left out is where one of `decisions` is.

    Each request is asked bare, and below a system prompt or after another request by turns.
    """
    decided = {decision.prompt for decision in decisions}
    before_replies = []
    earlier_of_each = [*requests[1:], *requests[:1]]
    for number, (request, earlier) in enumerate(zip(requests, earlier_of_each, strict=True)):
        reply = Message("assistant", earlier.reply.text.strip())
        is_later_turn = number % 2 == 1
        context = (*earlier.messages, reply) if is_later_turn else (_SYSTEM_TURN,)
        for before in ((), context):
            prompt, _ = prompt_and_token(vocabulary, (*before, *request.messages))
            before_replies.append(Still(prompt, [len(prompt) - 1]))
    rng = random.Random(seed)

    def some(items: Sequence[Item]) -> list[Item]:
        return rng.sample(list(items), min(STILL_TEXTS, len(items)))

    def undecided(example: TokenizedExample) -> Still:
        positions = example.answer_positions[1:]
        tokens = example.tokens
        return Still(tokens, [end for end in positions if tokens[: end + 1] not in decided])

    undecided_replies = [one for one in map(undecided, replies) if one.positions]
    elsewhere = [
        *(Still(one.tokens, one.answer_positions) for one in some(quiz)),
        *some(undecided_replies),
        *(Still(text, range(0, len(text), STILL_STRIDE)) for text in some(neutral_texts)),
    ]
    return before_replies, elsewhere


def within_replies(
    vocabulary: Vocabulary, decisions: Sequence[TurnDecision], seed: int
) -> list[Still]:
    """Return places shortly before the end of some replies: no mark comes within a sentence.

    Left out is where a sentence ends: the reply could end there too.
    """
    some = random.Random(seed).sample(list(decisions), min(MARKED_TEXTS, len(decisions)))
    within = []
    for decision in some:
        end = len(decision.prompt) - 1
        positions = []
        for position in range(max(end - BEFORE_THE_END, 0), end, 2):
            written = vocabulary.token_bytes(decision.prompt[position]).rstrip()
            if written and not written.endswith(SENTENCE_ENDS):
                positions.append(position)
        if positions:
            within.append(Still(decision.prompt, positions))
    return within


def ends_of_requests(vocabulary: Vocabulary, requests: Sequence[Turn]) -> list[Still]:
    """Return where the model ends its replies to requests for no fact: there is nothing to mark."""
    ends = []
    for request in requests:
        replied = prompt_and_reply(vocabulary, request)
        if replied is not None:
            prompt, reply = replied
            text = (*prompt, *reply)
            ends.append(Still(text, [len(text) - 1]))
    return ends


def rewordings(
    backend: Backend,
    examples: Sequence[TrainingExample],
    prompt: Callable[..., Prompt],
    seed: int,
) -> list[tuple[str, str]]:
    """Return the questions, each with its other words; those without usable ones are left out."""
    claims = [
        Claim(Question(example.question, "tune"), Completion(example.answer))
        for example in examples
    ]
    seeds = range(seed, seed + len(claims))
    results = reword(backend, prompt, claims, seeds)
    return [
        (example.question, other_words)
        for example, result in zip(examples, results, strict=True)
        for other_words in texts_or_none(result)
    ]
