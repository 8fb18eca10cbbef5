"""Training examples as tokens: each question in each prompt, and batches of like length."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from selfloop_plugins._decoding import chat
from selfloop_plugins._decoding.chat import Piece
from selfloop_plugins._decoding.prompting import decline_token, split
from selfloop_plugins._decoding.tasks import Vocabulary, common_prefix

from selfloop import Message, Request
from selfloop.records import Continuation
from selfloop.text.answers import MARK, UNKNOWN, declines

from .settings import Decide
from .training_examples import TrainingExample

MakeRequest = Callable[[str], Request]  # from a question to the request that asks it
Tokens = tuple[int, ...]

MIN_SHARED_TOKENS = 16  # a shorter shared prefix is not worth a forward pass of its own

# Kinds of decisions that are learnt: before the answer or after it, where a question is asked as
# the loop does. Those of a chat are solved (`rank_one.py`).
BEFORE_QUIZ, AFTER_QUIZ = "before the answer", "after the answer"
# Of the examples that are likelier wrong, the share whose text declines, each in the place where
# the model may decline: so it also learns the tokens after the first of these words.
DECLINING_TEXT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Decision:
    """A token of an answer in whose place the model may decline.

    offset  of the token, in the answer
    token   the token that begins to decline there
    kind    the kind of place: each has a decline bias of its own
    """

    offset: int
    token: int
    kind: str


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """A prompt and an answer in tokens, and how the answer is learnt.

    tokens          the prompt, then the answer to the end of its line, or of its text
    answer_start    index of the answer's first token; only the answer is learnt
    p_correct       probability that the answer is correct: how likely the model is not to decline
    decisions       where declining is learnt; nowhere of a text that only goes on
    teacher_prompt  tokens that the base reads before the answer, in place of this prompt
    num_distilled   how many of the answer's tokens are learnt as the base distributes them
                    (self-distillation); the others are learnt as they stand
    only_likeliest  distil a token only where the base finds it the likeliest; elsewhere the answer
                    was revised, and the token is learnt as it stands. A token that declines never
                    is: how likely it is, `p_correct` says
    """

    tokens: tuple[int, ...]
    answer_start: int
    p_correct: float = 0.0
    decisions: tuple[Decision, ...] = ()
    teacher_prompt: tuple[int, ...] = ()
    num_distilled: int = 0
    only_likeliest: bool = False

    @property
    def teacher_text(self) -> tuple[int, ...]:
        """Return the tokens that the base reads as the teacher: its prompt and the distilled tokens
        but the last, which nothing follows; empty where nothing is distilled."""
        if not self.num_distilled:
            return ()
        end = self.answer_start + self.num_distilled - 1
        return (*self.teacher_prompt, *self.tokens[self.answer_start : end])

    @property
    def answer_positions(self) -> range:
        """Return the positions whose hidden states predict the answer's tokens: each one before."""
        return range(self.answer_start - 1, len(self.tokens) - 1)


class Place(NamedTuple):
    """One decision in one example."""

    example: TokenizedExample
    decision: Decision

    @property
    def text(self) -> tuple[int, ...]:
        """Return the tokens before the decision."""
        return self.example.tokens[: self.example.answer_start + self.decision.offset]

    def alone(self, p_correct: float) -> TokenizedExample:
        """Return the example cut behind this decision, with this chance of being correct."""
        num_tokens = self.decision.offset + 1
        return replace(
            self.example,
            tokens=self.example.tokens[: self.example.answer_start + num_tokens],
            p_correct=p_correct,
            decisions=(self.decision,),
            num_distilled=min(self.example.num_distilled, num_tokens),
        )


def places_of(examples: Sequence[TokenizedExample]) -> dict[str, list[Place]]:
    """Return all decisions of some examples, by their kind."""
    by_kind: dict[str, list[Place]] = {}
    for example in examples:
        for decision in example.decisions:
            by_kind.setdefault(decision.kind, []).append(Place(example, decision))
    return by_kind


class Text(Enum):
    """What is learnt of an answer: itself, "I don't know" in its place, or the mark behind it."""

    ANSWER, UNKNOWN, MARKED = range(3)


def text_to_learn(
    p_correct: float,
    decide: Decide,
    rng: random.Random | None,
    share: float = DECLINING_TEXT_SHARE,
) -> Text:
    """Return what is learnt of an answer, in training by chance; else, without `rng`, itself.

    Only of an answer that is likelier wrong another text is learnt: of this share of them "I don't
    know", and of half of the others the mark.
    """
    # `rng` is drawn from only where it decides: the same draws for the same examples
    if rng is None or p_correct >= 0.5:
        return Text.ANSWER
    if decide != "after" and rng.random() < share:
        return Text.UNKNOWN
    if decide != "before" and rng.random() < DECLINING_TEXT_SHARE:
        return Text.MARKED
    return Text.ANSWER


def tokenize_all(
    vocabulary: Vocabulary,
    examples: Sequence[TrainingExample],
    prompts: Sequence[MakeRequest],
    rng: random.Random | None = None,
    decide: Decide = "before",
) -> list[TokenizedExample]:
    """Return each example in each prompt, by prompt: texts with the same beginning stay together.

    The last of `prompts` is that of the loop, which gave the answers. With `rng` the examples are
    for training: some of those that are likelier wrong have another text than their answer
    (`text_to_learn`), and a base model learns to end its text.
    """
    teacher_requests = [prompts[-1](example.question) for example in examples]
    tokenized = []
    for make_request in prompts:
        # Behind few-shot examples the loop ends the answer, by the end of its line. Else the model
        # learns to end it.
        is_bare = make_request is not prompts[-1]
        for example, teacher_request in zip(examples, teacher_requests, strict=True):
            if not example.answer or declines(example.answer):
                text = Text.UNKNOWN
            else:
                text = text_to_learn(example.p_correct, decide, rng)
            tokenized.append(
                tokenize(
                    vocabulary,
                    example,
                    make_request(example.question),
                    teacher_request,
                    text=text,
                    decide=decide,
                    ends_turn=is_bare,
                    ends_text=is_bare and rng is not None,
                )
            )
    return tokenized


def tokenize(
    vocabulary: Vocabulary,
    example: TrainingExample,
    request: Request,
    teacher_request: Request,
    *,
    text: Text = Text.ANSWER,
    decide: Decide = "before",
    ends_turn: bool = False,
    ends_text: bool = False,
) -> TokenizedExample:
    """Return an example in a prompt, with its answer, or as `text` says.

    The answer ends with its line. But with `ends_turn` a chat model ends its turn there, and with
    `ends_text` a base model also ends its text. Both ends are learnt as they stand: the base would
    go on, with an explanation or with another question.

    The answer is distilled from the base behind `teacher_request`, the prompt in which it was
    given. Where the answer is believed but the base would say something else (it was revised), it
    is learnt as it stands.
    """
    end: tuple[int, ...] = ()
    line_end = "\n"
    if isinstance(request.prompt, str):
        end = end_of_text(vocabulary) if ends_text else ()
    elif ends_turn:
        end = end_of_turn(vocabulary, request.prompt)
        line_end = "" if end else "\n"

    def line_of(answer: str) -> tuple[list[int], list[int]]:
        line = f" {answer}{line_end}"
        return split(vocabulary, Continuation(request.prompt, line, request.open_turn))

    answer = UNKNOWN if text is Text.UNKNOWN else example.answer
    prompt, tokens = line_of(answer)
    teacher_prompt, _ = split(
        vocabulary, Continuation(teacher_request.prompt, f" {answer}\n", teacher_request.open_turn)
    )
    num_distilled = len(tokens)
    decisions = []
    if decide != "after":
        decisions.append(Decision(0, decline_token(vocabulary, request), BEFORE_QUIZ))
    if text is Text.UNKNOWN:
        num_distilled = 1  # its beginning, where declining is left out anyway
    elif decide != "before":
        _, marked = line_of(answer + MARK)
        offset = common_prefix(tokens, marked)
        decisions.append(Decision(offset, marked[offset], AFTER_QUIZ))
        if text is Text.MARKED:
            tokens, num_distilled = marked, offset + 1
    return TokenizedExample(
        tokens=(*prompt, *tokens, *end),
        answer_start=len(prompt),
        p_correct=example.p_correct,
        decisions=tuple(decisions),
        teacher_prompt=tuple(teacher_prompt),
        num_distilled=num_distilled,
        only_likeliest=example.p_correct >= 0.5,
    )


def end_of_text(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Return the token that ends a text, alone; nothing where the model has none."""
    if not vocabulary.eos:
        return ()
    *_, token = vocabulary.tokens([Piece(vocabulary.eos, True)])
    return (token,) if vocabulary.is_end(token) else ()


def end_of_turn(vocabulary: Vocabulary, messages: Sequence[Message]) -> tuple[int, ...]:
    """Return the token with which the template ends the model's turn after these messages, alone;
    nothing for a template that ends it with none.

    The last message may be the beginning of that turn.
    """
    earlier = messages[:-1] if messages[-1].role == "assistant" else messages
    special = {"bos_token": vocabulary.bos, "eos_token": vocabulary.eos}
    closed = (*earlier, Message("assistant", "."), Message("user", "."))
    rendered = chat.render(vocabulary.template, closed, special=special)
    contents = [i for i, piece in enumerate(rendered) if not piece.trusted]
    after_reply = rendered[contents[-2] + 1 : contents[-1]]
    ends = [token for token in vocabulary.tokens(after_reply) if vocabulary.is_end(token)]
    return tuple(ends[:1])


def by_likeness(texts: Sequence[Tokens], size: int) -> Callable[[Tokens], tuple[Tokens, int]]:
    """Return a sort key that puts like texts together, to be read in batches of `size`.

    Texts with the same beginning stay together, if they fill a batch: a batch reads its beginning
    once. Among them the length decides, so there is little padding.
    """
    beginnings = Counter(text[:MIN_SHARED_TOKENS] for text in texts)

    def beginning_and_length(text: Tokens) -> tuple[Tokens, int]:
        beginning = text[:MIN_SHARED_TOKENS]
        is_shared = len(text) > MIN_SHARED_TOKENS and beginnings[beginning] >= size
        return (beginning if is_shared else ()), len(text)

    return beginning_and_length


def in_like_order(texts: Iterable[Tokens], size: int) -> list[Tokens]:
    """Return different texts with like ones together, in an order that depends on them alone."""
    different = set(texts)
    likeness = by_likeness(list(different), size)
    return sorted(different, key=lambda text: (likeness(text), text))


def batches_of_like_length(
    examples: Sequence[TokenizedExample], size: int, seed: int
) -> list[list[TokenizedExample]]:
    """Return batches of at most `size` like examples (`by_likeness`), in random order; within one,
    the longest example is at most twice as long as the shortest.

    Without this limit a bare question beside one with few-shot examples would be padded to that
    length, and the beginning that the others share would be read for each of them.
    """
    rng = random.Random(seed)
    likeness = by_likeness([example.tokens for example in examples], size)
    # the last decides among equals by chance
    keyed = [(*likeness(example.tokens), rng.random(), example) for example in examples]
    keyed.sort(key=lambda one: one[:3])
    batches: list[list[TokenizedExample]] = []
    last_beginning: Tokens = ()
    for beginning, length, _, example in keyed:
        is_full = not batches or len(batches[-1]) == size or beginning != last_beginning
        if is_full or length > 2 * len(batches[-1][0].tokens):
            batches.append([])
        batches[-1].append(example)
        last_beginning = beginning
    rng.shuffle(batches)
    return batches


def shared_prefix_length(texts: Sequence[tuple[int, ...]]) -> int:
    """Return how many tokens all texts begin with."""
    # in lexical order, the tokens that the first and the last text share are shared by all
    return common_prefix(min(texts), max(texts))


def padded_tokens(batch: Sequence[TokenizedExample]) -> int:
    """Return how many tokens the model reads for a batch: the shared prefix once, the rest of each
    text padded to the longest."""
    texts = [example.tokens for example in batch]
    shared = shared_prefix_length(texts)
    return shared + len(texts) * (max(map(len, texts)) - shared)
