"""Examples in the form in which people meet a chat model: a turn of its own template, and its end.

The quiz form of the loop is not the one in which a chat model is used. So each question is also
asked in a user's turn: once bare, and once below a system prompt, as the second turn of a
conversation, or as a request in other words. The model learns to answer as the base does, in its
own words (self-distillation), to decline in natural words, and to end its turn as the template
does. A small model's reply is often an essay that lacks the answer which the loop believes. Then
the base replies behind four examples, which are earlier turns of the conversation: in one sentence.

Requests that ask for no fact are lessons that are never declined: greetings, sums and poems are no
reason to. The base's replies to them are also texts on which the tuned model is held to the base.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from selfloop_plugins._decoding.prompting import decline_token, split
from selfloop_plugins._decoding.tasks import Vocabulary

from selfloop import Completion, Message, Request, Sampling
from selfloop.errors import ModelError
from selfloop.evaluation.gold import match_named
from selfloop.protocols import Backend
from selfloop.records import Continuation
from selfloop.text.answers import MARK_IN_CHAT, declines

from .requests import TRAINED_REQUESTS
from .settings import Decide
from .tokenized import (
    Text,
    TokenizedExample,
    Tokens,
    end_of_turn,
    text_to_learn,
)
from .training_examples import TrainingExample

SYSTEM_PROMPT = "You are a helpful assistant."
# the question as part of a request in other words
WORDINGS = (
    "Please answer this question: {}",
    "I would like to know: {}",
    "Do you know this? {}",
    "{} Please answer in one sentence.",
)
# What the base reads before a question, and the tuned model does not, where its own reply lacks the
# answer.
EXAMPLES = (
    ("What is the largest planet in the solar system?", "The largest planet is Jupiter."),
    ("Who wrote the play 'Hamlet'?", "William Shakespeare wrote the play 'Hamlet'."),
    ("How many sides does a hexagon have?", "A hexagon has six sides."),
    ("On which continent is Egypt?", "Egypt is in Africa."),
)
# All begin with the same token, the one whose probability is learnt.
DECLINING = (
    "I don't know.",
    "I don't know the answer to that.",
    "I don't know that, and I don't want to guess.",
)
# Of a reply. A fact takes fewer; a longer reply is cut after its first sentence.
MAX_REPLY_TOKENS = 48
MIN_REPLY_TOKENS = 2
# Of the turns that are likelier wrong, the share that is taught "I don't know": enough to go on so
# behind its first token, and too few to do so elsewhere.
DECLINING_TURN_SHARE = 0.15
# A reply that the base gives and ends by itself teaches a model nothing but to stay so. Of these
# this share is enough.
REPEATED_SHARE = 0.25
# How likely the reply to a request for no fact is taken to be right: it is not to be declined.
P_REQUEST = 0.98
SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s*$")

_GREEDY = Sampling(max_tokens=MAX_REPLY_TOKENS)
holds = match_named("contains")


@dataclass(frozen=True, slots=True)
class Turn:
    """A question in one of the forms, and the base's reply to it.

    `teacher` are the messages to which the base replied: `messages`, or these behind the examples.
    `p_correct` is the probability that the reply is correct.
    """

    example: TrainingExample
    messages: tuple[Message, ...]
    teacher: tuple[Message, ...]
    reply: Completion
    p_correct: float

    @property
    def is_own(self) -> bool:
        """Return whether the base gives this reply by itself, to its end."""
        return self.teacher == self.messages and self.reply.finish == "stop"

    @property
    def holds_answer(self) -> bool:
        """Return whether the reply gives the same answer as the loop's prompt did."""
        return _holds_answer(self.reply, self.example)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that asks for no fact, and the base's reply, in tokens.

    `start` is the index of the reply's first token.
    """

    tokens: tuple[int, ...]
    start: int

    @property
    def positions(self) -> tuple[int, ...]:
        """Return positions whose states predict tokens of the reply: dense where it begins.

        A refusal begins there.
        """
        begin = range(self.start - 1, min(self.start + 3, len(self.tokens) - 1))
        later = range(self.start + 3, len(self.tokens) - 1, 8)
        return (*begin, *later)


def write_turns(backend: Backend, examples: Sequence[TrainingExample]) -> list[Turn]:
    """Return each example as two turns: as the bare question, and in one of the other forms.

    The earlier turn of a conversation is one of the bare questions with the base's reply, where
    that is likely correct. A question that the model refuses to read is left out.
    """
    bare = _replied(backend, examples, [user_turn(example.question) for example in examples])
    known = [turn for turn in bare if turn.p_correct >= 0.5 and turn.holds_answer]
    prompts = [other_form(i, example.question, known) for i, example in enumerate(examples)]
    return bare + _replied(backend, examples, prompts)


def user_turn(text: str) -> tuple[Message, ...]:
    """Return a conversation that is one message of a user."""
    return (Message("user", text),)


def other_form(number: int, question: str, known: Sequence[Turn]) -> tuple[Message, ...]:
    """Return a question in one of the other forms, each in its turn."""
    form, count = number % 3, number // 3
    if form == 0:
        return (Message("system", SYSTEM_PROMPT), *user_turn(question))
    # the question itself is no earlier turn
    others = [turn for turn in known if turn.example.question != question]
    if form == 1 and others:
        earlier = others[count % len(others)]
        reply = Message("assistant", earlier.reply.text.strip())
        return (*user_turn(earlier.example.question), reply, *user_turn(question))
    return user_turn(WORDINGS[count % len(WORDINGS)].format(question))


def _replied(
    backend: Backend,
    examples: Sequence[TrainingExample],
    prompts: Sequence[tuple[Message, ...]],
) -> list[Turn]:
    """Return each prompt with a reply of the base.

    That is its reply to the prompt itself, so that nothing but declining and ending changes; or its
    reply behind the examples, where only that one holds an answer that the loop believes.
    """
    own = replies(backend, prompts)
    lacking = []
    for i, example in enumerate(examples):
        if example.p_correct >= 0.5 and not _holds_answer(own[i], example):
            lacking.append(i)
    behind_examples = {i: _behind_examples(prompts[i]) for i in lacking}
    shown = dict(zip(lacking, replies(backend, list(behind_examples.values())), strict=True))
    turns = []
    for i, example in enumerate(examples):
        teacher, reply = prompts[i], own[i]
        if _holds_answer(shown.get(i), example):
            teacher, reply = behind_examples[i], shown[i]
        if reply is not None:
            chance = _p_reply(example, reply.text)
            turns.append(Turn(example, prompts[i], teacher, reply, chance))
    return turns


def _holds_answer(reply: Completion | None, example: TrainingExample) -> bool:
    return reply is not None and bool(holds(reply.text, [example.answer]))


def _behind_examples(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return a conversation with the examples as its first turns, after a system prompt."""
    start = 1 if prompt[0].role == "system" else 0
    turns: list[Message] = []
    for question, answer in EXAMPLES:
        turns += (Message("user", question), Message("assistant", answer))
    return (*prompt[:start], *turns, *prompt[start:])


def _p_reply(example: TrainingExample, reply: str) -> float:
    """Return how likely a reply is correct, from how likely the answer of the loop is.

    A reply that holds the answer is as likely. Another one can be right only if that is wrong, and
    a model that contradicts itself hardly knows.
    """
    if declines(reply) or holds(reply, [example.answer]):
        return example.p_correct
    return example.p_correct * (1 - example.p_correct)


def replies(backend: Backend, prompts: Sequence[tuple[Message, ...]]) -> list[Completion | None]:
    """Return the greedy reply to each prompt; None where the model cannot read it."""
    completions = dict(backend.generate([Request(prompt, _GREEDY) for prompt in prompts]))
    texts: list[Completion | None] = []
    for i in range(len(prompts)):
        completion = completions.get(i)
        texts.append(completion if isinstance(completion, Completion) else None)
    return texts


def turn_examples(
    vocabulary: Vocabulary,
    turns: Sequence[Turn],
    rng: random.Random | None = None,
    decide: Decide = "before",
) -> list[TokenizedExample]:
    """Return turns in tokens, each with its end.

    With `rng` they are for training: some of the turns that are likelier wrong have another text
    than their reply (`text_to_learn`). Of "I don't know", and of the mark behind a reply, the first
    token is not learnt: how likely that is, `rank_one.py` solves. A reply that begins with that
    token shows how else to go on behind it. Left out are replies without a whole sentence, and most
    of those that the base gives and ends by itself: they teach nothing else.
    """
    examples = []
    for number, turn in enumerate(turns):
        if declines(turn.reply.text):
            text = Text.UNKNOWN
        else:
            text = text_to_learn(turn.p_correct, decide, rng, DECLINING_TURN_SHARE)
        declining = DECLINING[number % len(DECLINING)]
        example = _turn_example(vocabulary, turn, declining, text)
        if example is None:
            continue
        begins_so = turn.reply.tokens[0] == decline_token(vocabulary, Request(turn.messages))
        repeats = text is Text.ANSWER and turn.is_own and not begins_so
        if rng is None or not repeats or rng.random() < REPEATED_SHARE:
            examples.append(example)
    return examples


def _turn_example(
    vocabulary: Vocabulary, turn: Turn, declining: str, text: Text
) -> TokenizedExample | None:
    """Return a turn in tokens; `declining` are the words in place of its reply. None of a reply
    without a whole sentence, or to which no mark can be added."""
    end = _end_of_turn(vocabulary, turn)
    num_distilled = 0
    opening: Sequence[int]
    prompt: Sequence[int]
    reply: Sequence[int]
    if text is Text.UNKNOWN:
        opening, (first, *rest) = split(vocabulary, Continuation(turn.messages, declining))
        prompt, reply = [*opening, first], [*rest, end]
    elif text is Text.MARKED:
        decided = before_mark(vocabulary, turn)
        if decided is None:
            return None
        opening, (first, *rest) = decided
        prompt, reply = [*opening, first], [*rest, end]
    else:
        replied = prompt_and_reply(vocabulary, turn)
        if replied is None:
            return None
        prompt, tokens = replied
        reply = [*tokens, end]
        num_distilled = len(reply)
    teacher_prompt, _ = split(vocabulary, Continuation(turn.teacher, declining))
    return TokenizedExample(
        tokens=(*prompt, *reply),
        answer_start=len(prompt),
        p_correct=turn.p_correct,
        teacher_prompt=tuple(teacher_prompt),
        num_distilled=num_distilled,
        # the end of a reply that was cut is not what the base would say there
        only_likeliest=True,
    )


def _end_of_turn(vocabulary: Vocabulary, turn: Turn) -> int:
    end = end_of_turn(vocabulary, turn.messages)
    if not end:
        raise ModelError(
            f"the chat template of {vocabulary.name} ends a turn with no token that ends a text. "
            "The model cannot learn to end its turns: set the tuner's chat: false"
        )
    return end[0]


def before_mark(vocabulary: Vocabulary, turn: Turn) -> tuple[Tokens, Tokens] | None:
    """Return a turn in tokens up to the end of its reply, and the mark behind it. None of a reply
    without a whole sentence, and where the mark would change the reply's own tokens."""
    replied = prompt_and_reply(vocabulary, turn)
    if replied is None:
        return None
    prompt, reply = replied
    text = b"".join(map(vocabulary.token_bytes, reply)).decode("utf-8", "ignore")
    _, plain = split(vocabulary, Continuation(turn.messages, text))
    _, marked = split(vocabulary, Continuation(turn.messages, text + MARK_IN_CHAT))
    if marked[: len(plain)] != plain:
        return None
    return (*prompt, *reply), tuple(marked[len(plain) :])


def prompt_and_reply(vocabulary: Vocabulary, turn: Turn) -> tuple[Tokens, Tokens] | None:
    """Return the prompt of a turn and its whole reply, in tokens. None without a whole sentence."""
    reply = _whole_reply(vocabulary, turn)
    if reply is None:
        return None
    # by its own tokens: a text could change the last token of the prompt
    prompt, _ = split(vocabulary, Continuation(turn.messages, reply))
    return tuple(prompt), reply


def _whole_reply(vocabulary: Vocabulary, turn: Turn) -> Tokens | None:
    """Return a reply in tokens, without the end of its turn; of one that was too long the first
    sentence. None where there is no such sentence."""
    tokens = turn.reply.tokens
    if turn.reply.finish == "stop":
        return tokens[:-1] if len(tokens) > MIN_REPLY_TOKENS else None
    written = b""
    for count, token in enumerate(tokens, start=1):
        written += vocabulary.token_bytes(token)
        text = written.decode("utf-8", "ignore")
        is_whole = "\n" in text or SENTENCE_END.search(text)
        if count > MIN_REPLY_TOKENS and is_whole:
            return tokens[: count - 1] if "\n" in text else tokens[:count]
    return None


def request_turns(backend: Backend) -> list[Turn]:
    """Return the base's replies to the requests that are not the gate's."""
    prompts = [user_turn(text) for text in TRAINED_REQUESTS]
    turns = []
    for prompt, reply in zip(prompts, replies(backend, prompts), strict=True):
        if reply is not None and len(reply.tokens) > MIN_REPLY_TOKENS and not declines(reply.text):
            example = TrainingExample(prompt[0].content, reply.text, P_REQUEST)
            turns.append(Turn(example, prompt, prompt, reply, P_REQUEST))
    return turns


def exchanges_of(vocabulary: Vocabulary, turns: Sequence[Turn]) -> list[Exchange]:
    """Return requests and their replies in tokens."""
    exchanges = []
    for turn in turns:
        opening, reply = split(vocabulary, Continuation(turn.messages, turn.reply.tokens))
        exchanges.append(Exchange((*opening, *reply), len(opening)))
    return exchanges
