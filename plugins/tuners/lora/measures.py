"""Figures of a model, without gradients: its greedy answers, and how likely it declines."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from .forward import last_hidden_states, logits_of
from .losses import NO_BIAS, TeacherStates, answer_loss, decline_odds, declining_and_others
from .tokenized import Place, TokenizedExample

# Right answers to be expected among some: fewer say nothing of how often to decline.
MIN_RIGHT_ANSWERS = 4.0


class GreedyAnswer(NamedTuple):
    """Whether greedy decoding declines, and whether it gives the example's answer and no more."""

    declines: bool
    is_same: bool


@torch.no_grad()
def greedy_answers(
    model: Any, examples: Sequence[TokenizedExample], batch_size: int
) -> list[GreedyAnswer]:
    """Return the result of greedy decoding for each example.

    Nothing is generated: one pass over the example's own tokens gives the likeliest token at each
    position. Greedy decoding gives the same answer exactly if all of these are its tokens.
    """
    model.eval()
    answers: list[GreedyAnswer] = []
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        positions = [example.answer_positions for example in batch]
        states = last_hidden_states(model, [example.tokens for example in batch], positions)
        likeliest = logits_of(model, states).argmax(-1).tolist()
        first = 0  # row of this example's first answer token
        for example in batch:
            end = first + len(example.answer_positions)
            tokens = likeliest[first:end]
            answer = [*example.tokens[example.answer_start :]]
            is_declined = any(
                tokens[: decision.offset] == answer[: decision.offset]
                and tokens[decision.offset] == decision.token
                for decision in example.decisions
            )
            answers.append(GreedyAnswer(is_declined, tokens == answer))
            first = end
    return answers


@torch.no_grad()
def perplexity(model: Any, texts: Sequence[tuple[int, ...]]) -> float:
    """Return exp(-mean log-probability) of all tokens but the first of each text; 1 without any."""
    model.eval()
    logprobs: list[float] = []
    for text in texts:
        states = last_hidden_states(model, [text], [range(len(text) - 1)])
        distributions = logits_of(model, states).log_softmax(-1)  # (tokens - 1, vocabulary)
        next_tokens = torch.tensor(text[1:], device=distributions.device)[:, None]
        logprobs += distributions.gather(1, next_tokens)[:, 0].tolist()
    return math.exp(-sum(logprobs) / len(logprobs)) if logprobs else 1.0


class Declining(NamedTuple):
    """How near a model is to declining in a place, in nats.

    margin  the logit of declining minus the largest other: above 0, greedy decoding declines
    odds    the log-odds of declining, against all else
    """

    margin: float
    odds: float


@torch.no_grad()
def declining_at(model: Any, places: Sequence[Place], batch_size: int) -> list[Declining]:
    """Return how near the model is to declining in each place."""
    model.eval()
    found: list[Declining] = []
    for start in range(0, len(places), batch_size):
        batch = places[start : start + batch_size]
        texts = [place.text for place in batch]
        states = last_hidden_states(model, texts, [[len(text) - 1] for text in texts])
        logits = logits_of(model, states)
        tokens = [place.decision.token for place in batch]
        odds, _ = decline_odds(logits, tokens)
        found += map(Declining, decline_margins(logits, tokens).tolist(), odds.tolist())
    return found


def decline_margins(logits: torch.Tensor, decline_tokens: Sequence[int]) -> torch.Tensor:
    """Return the logit of declining minus the largest other, in nats, (positions,).

    `decline_tokens` has the token that begins a refusal for each position.
    """
    declining, others = declining_and_others(logits, decline_tokens)
    return declining - others.max(-1).values


def decline_excess(
    margins: Sequence[float], p_correct: Sequence[float], keep: float, price: float | None
) -> float:
    """Return by how many nats the margins are too high: with that bias against declining the share
    `keep` of the right answers is given, or the answers given are worth most at the `price` of a
    wrong one. It is 0 where too few answers are expected to be right."""
    if sum(p_correct) < MIN_RIGHT_ANSWERS:
        return 0.0
    if price is None:
        return bias_to_keep(margins, p_correct, keep)
    return bias_for_price(margins, p_correct, price)


def bias_to_keep(margins: Sequence[float], p_correct: Sequence[float], keep: float) -> float:
    """Return the bias against declining, in nats, with which the share `keep` of the correct
    answers is given; 0 without examples.

    An answer is given where its decline margin is at most the bias. `p_correct` says how likely
    each is correct, so no label is needed: the bias is the weighted quantile of the margins.
    """
    wanted = keep * sum(p_correct)
    kept = 0.0
    for margin, weight in sorted(zip(margins, p_correct, strict=True)):
        kept += weight
        if kept >= wanted:
            return margin
    return 0.0


def bias_for_price(margins: Sequence[float], p_correct: Sequence[float], price: float) -> float:
    """Return the bias against declining, in nats, with which the answers given are worth most.

    A correct answer earns 1, and a wrong one costs price / (1 - price), so that answering pays off
    above a chance of `price` (Kalai et al. 2025, arXiv 2509.04664). The bias lies midway between
    the margins of the last answer that is given and the first that is declined; 0 without examples.
    """
    cost = price / (1 - price)
    in_order = sorted(zip(margins, p_correct, strict=True))
    if not in_order:
        return 0.0
    best_count, best_worth, worth = 0, 0.0, 0.0
    for count, (_, chance) in enumerate(in_order, start=1):
        worth += chance - cost * (1 - chance)
        if worth > best_worth:
            best_count, best_worth = count, worth
    if best_count == 0:
        return in_order[0][0] - 1.0  # below every margin: all are declined
    last = in_order[best_count - 1][0]
    following = in_order[best_count][0] if best_count < len(in_order) else last
    return (last + following) / 2


@torch.no_grad()
def held_out_loss(
    model: Any,
    held_out: Sequence[TokenizedExample],
    teacher: TeacherStates,
    batch_size: int,
    decline_biases: Mapping[str, float] = NO_BIAS,
) -> float:
    """Return the mean over batches of `answer_loss`; 0 without examples."""
    model.eval()
    losses = []
    for start in range(0, len(held_out), batch_size):
        batch = held_out[start : start + batch_size]
        losses.append(answer_loss(model, batch, teacher, decline_biases).item())
    return sum(losses) / len(losses) if losses else 0.0
