"""Training examples as tokens: each question in each prompt, and batches of like length."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfloop_plugins._decoding.chat import Piece
from selfloop_plugins._decoding.prompting import decline_token, split
from selfloop_plugins._decoding.tasks import Vocabulary, common_prefix

from selfloop import Request
from selfloop.records import Continuation
from selfloop.text.answers import UNKNOWN, declines

from .training_examples import TrainingExample

MakeRequest = Callable[[str], Request]  # from a question to the request that asks it

# the forms in which a question is asked: as the loop does, and as a user does in a chat
QUIZ, TURN = "quiz", "turn"
# of the examples that are likelier wrong, the share whose text is "I don't know": so the model also
# learns to end that sentence, and the tokens after its beginning
UNKNOWN_TEXT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """A prompt and an answer in tokens, and how the answer is learnt.

    tokens          the prompt, then the answer to the end of its line, or of its text
    answer_start    index of the answer's first token; only the answer is learnt
    p_correct       probability that the answer is correct: how likely the model is to begin an
                    answer here, and not to decline; None where declining is not learnt
    teacher_prompt  tokens that the base reads before the answer, in place of this prompt
    num_distilled   how many of the answer's tokens are learnt as the base distributes them
                    (self-distillation); the others are learnt as they stand
    only_likeliest  distil a token only where the base finds it the likeliest; elsewhere the answer
                    was revised, and the token is learnt as it stands
    decline_token   the token with which "I don't know" begins after this prompt
    decline_weight  of declining in the loss, where a token of an answer weighs 1
    form            the form in which the question is asked: QUIZ or TURN; each has a decline bias
    """

    tokens: tuple[int, ...]
    answer_start: int
    p_correct: float | None = None
    teacher_prompt: tuple[int, ...] = ()
    num_distilled: int = 0
    only_likeliest: bool = False
    decline_token: int = 0
    decline_weight: float = 1.0
    form: str = QUIZ

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


def tokenize_all(
    vocabulary: Vocabulary,
    examples: Sequence[TrainingExample],
    prompts: Sequence[MakeRequest],
    rng: random.Random | None = None,
) -> list[TokenizedExample]:
    """Return each example in each prompt, by prompt: texts with the same beginning stay together.

    The last of `prompts` is that of the loop, which gave the answers. With `rng` the examples are
    for training: half of those that are likelier wrong get the text "I don't know" in place of
    their answer, and a base model learns to end its text.
    """
    teacher_requests = [prompts[-1](example.question) for example in examples]
    tokenized = []
    for make_request in prompts:
        # A base model learns to end after its answer. Behind few-shot examples the loop ends it.
        ends_text = rng is not None and make_request is not prompts[-1]
        for example, teacher_request in zip(examples, teacher_requests, strict=True):
            is_unknown = not example.answer or declines(example.answer)
            # `rng` is drawn from only where it decides: the same draws for the same examples
            if not is_unknown and rng and example.p_correct < 0.5:
                is_unknown = rng.random() < UNKNOWN_TEXT_SHARE
            tokenized.append(
                tokenize(
                    vocabulary,
                    example,
                    make_request(example.question),
                    teacher_request,
                    unknown=is_unknown,
                    ends_text=ends_text,
                )
            )
    return tokenized


def tokenize(
    vocabulary: Vocabulary,
    example: TrainingExample,
    request: Request,
    teacher_request: Request,
    *,
    unknown: bool,
    ends_text: bool = False,
) -> TokenizedExample:
    """Return an example in a prompt, with its answer, or with "I don't know" where `unknown`.

    With `ends_text` the token that ends a text follows, if the prompt is text: it is learnt as it
    stands, for the base would go on with another question.

    The answer is distilled from the base behind `teacher_request`, the prompt in which it was
    given. Where the answer is believed but the base would say something else (it was revised), it
    is learnt as it stands.
    """
    text = f" {UNKNOWN if unknown else example.answer}\n"
    prompt, answer = split(vocabulary, Continuation(request.prompt, text, request.open_turn))
    teacher_prompt, _ = split(
        vocabulary, Continuation(teacher_request.prompt, text, teacher_request.open_turn)
    )
    end = end_of_text(vocabulary) if ends_text and isinstance(request.prompt, str) else ()
    return TokenizedExample(
        tokens=(*prompt, *answer, *end),
        answer_start=len(prompt),
        p_correct=example.p_correct,
        decline_token=decline_token(vocabulary, request),
        teacher_prompt=tuple(teacher_prompt),
        # of "I don't know" only the beginning is distilled, where declining is left out anyway
        num_distilled=1 if unknown else len(answer),
        only_likeliest=example.p_correct >= 0.5,
    )


def end_of_text(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Return the token that ends a text, alone; nothing where the model has none."""
    if not vocabulary.eos:
        return ()
    *_, token = vocabulary.tokens([Piece(vocabulary.eos, True)])
    return (token,) if vocabulary.is_end(token) else ()


def batches_of_like_length(
    examples: Sequence[TokenizedExample], size: int, seed: int
) -> list[list[TokenizedExample]]:
    """Return batches of at most `size` examples, in random order; within one, the longest example
    is at most twice as long as the shortest.

    Without this limit a bare question beside one with few-shot examples would be padded to that
    length, and the beginning that the others share would be read for each of them.
    """
    rng = random.Random(seed)

    def length_then_chance(example: TokenizedExample) -> tuple[int, float]:
        return len(example.tokens), rng.random()

    batches: list[list[TokenizedExample]] = []
    for example in sorted(examples, key=length_then_chance):
        is_full = not batches or len(batches[-1]) == size
        if is_full or len(example.tokens) > 2 * len(batches[-1][0].tokens):
            batches.append([])
        batches[-1].append(example)
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
