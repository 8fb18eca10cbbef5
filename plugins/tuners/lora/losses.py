"""The terms of the loss, each computed from the logits at the positions where it applies.

For the answer y of a question with prompt x, with z the logits at a position, p = softmax(z), and q
the base's distribution behind the teacher's prompt:

cross entropy    -log p(y)                 of tokens that are learnt as they stand
distillation     -sum_v q(v) log p(v)      of tokens that are learnt as the base distributes them:
                                           the model keeps its answers, and only declines anew
declining        -[(1 - c) log s + c log(1 - s)]   where the model may decline, with c the
                                           probability that the answer is correct, and
                                           s = sigmoid(odds + bias), where
                                           odds = log p(d) - log(1 - p(d)), d the token that begins
                                           to decline there
divergence       KL(base || tuned)         on neutral text that the base wrote: all else stays

There, the first two are meant among all tokens but d, so that the answer's own loss and that of
declining do not pull at the same probability.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, log_softmax

from .forward import base_model, last_hidden_states, logits_of
from .tokenized import Decision, TokenizedExample, in_like_order

# positions whose logits exist at a time: with 262,144 tokens, 34 MB for each tensor of that size
POSITIONS_AT_ONCE = 32
# the base is compared at every eighth position of a neutral text: its neighbours say much the same
KL_STRIDE = 8

# a decline bias for each kind of decision: none, before training has set any
NO_BIAS: Mapping[str, float] = {}

# the base's last hidden states at the distilled positions of a teacher's text, (distilled, width)
TeacherStates = dict[tuple[int, ...], torch.Tensor]


@dataclass(frozen=True, slots=True)
class TargetToken:
    """One token of an answer that is learnt.

    token           the token itself
    teacher_row     row of the teacher's states that predicts it; None where it is not distilled
    only_likeliest  as in `TokenizedExample`
    p_correct       how likely the answer is correct
    decision        the model's decision in the place of this token; None where it makes none
    decline_bias    added to the log-odds of declining there, in nats
    """

    token: int
    teacher_row: int | None
    only_likeliest: bool
    p_correct: float
    decision: Decision | None
    decline_bias: float


@dataclass(frozen=True, slots=True)
class KlReference:
    """A neutral text, positions in it, and the base's hidden states there, (positions, width)."""

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    states: torch.Tensor


def answer_loss(
    model: Any,
    batch: Sequence[TokenizedExample],
    teacher: TeacherStates,
    decline_biases: Mapping[str, float] = NO_BIAS,
    preference: float | None = None,
) -> torch.Tensor:
    """Return the mean loss over the answers' tokens of a batch, a scalar with gradients.

    `decline_biases`, one for each kind of decision, are added to the log-odds of declining (logit
    adjustment, Menon et al. 2020, arXiv 2007.07314): a model that is right with the bias declines
    less without it. With `preference` (beta), the model does not learn how likely declining is, but
    whether it is preferred to answering. The logit is then beta times the change of the log-odds
    since the base (DPO, Rafailov et al. 2023, arXiv 2305.18290, with the probability as a soft
    label).
    """
    targets = _target_tokens(batch, decline_biases)
    positions = [example.answer_positions for example in batch]
    states = last_hidden_states(model, [example.tokens for example in batch], positions)
    distilled = [teacher[example.teacher_text] for example in batch if example.num_distilled]
    teacher_rows = torch.cat(distilled or [states.new_zeros(0)])
    # Backpropagate in two stages, so that the logits of few positions exist at a time. First from
    # each piece's loss to the states, which are cut off from the model; then, by a term that is 0
    # and whose gradient is that of the states, from the states into the adapter.
    cut_states = states.detach().requires_grad_(states.requires_grad)
    total = states.new_zeros((), dtype=torch.float32)
    for start in range(0, len(targets), POSITIONS_AT_ONCE):
        end = start + POSITIONS_AT_ONCE
        loss = _summed_loss(
            model,
            cut_states[start:end],
            teacher_rows,
            targets[start:end],
            preference,
        ) / len(targets)
        if loss.requires_grad:
            torch.autograd.backward(loss)  # frees this piece's logits
        total += loss.detach()
    if cut_states.grad is None:
        return total
    return total + ((states - states.detach()) * cut_states.grad).sum()


def _target_tokens(
    batch: Sequence[TokenizedExample], decline_biases: Mapping[str, float]
) -> list[TargetToken]:
    """Return the tokens that are learnt of a batch, in the order of their hidden states."""
    targets = list[TargetToken]()
    first_row = 0  # of this example in the teacher's states, which are in the order of the batch
    for example in batch:
        decisions = {decision.offset: decision for decision in example.decisions}
        for offset, token in enumerate(example.tokens[example.answer_start :]):
            is_distilled = offset < example.num_distilled
            decision = decisions.get(offset)
            targets.append(
                TargetToken(
                    token=token,
                    teacher_row=first_row + offset if is_distilled else None,
                    only_likeliest=example.only_likeliest,
                    p_correct=example.p_correct,
                    decision=decision,
                    decline_bias=decline_biases.get(decision.kind, 0.0) if decision else 0.0,
                )
            )
        first_row += example.num_distilled
    return targets


def _summed_loss(
    model: Any,
    states: torch.Tensor,
    teacher_rows: torch.Tensor,
    targets: Sequence[TargetToken],
    preference: float | None,
) -> torch.Tensor:
    """Return the summed loss of some tokens from the states that predict them, (targets, width)."""
    logits = logits_of(model, states)
    rows, distributions, base_odds = _teacher_targets(model, teacher_rows, targets)
    # -log p(y) = logsumexp(z) - z[y], and -sum q log p = logsumexp(z) - sum q z: both differ only
    # in the logit that is wanted
    tokens = torch.tensor([[target.token] for target in targets], device=logits.device)
    wanted = logits.gather(1, tokens)[:, 0]
    wanted = wanted.index_put((rows,), torch.linalg.vecdot(logits[rows], distributions))
    normalizer = logits.logsumexp(-1)
    losses = (normalizer - wanted).sum()
    decisions = _decisions(targets)
    if not decisions:
        return losses
    decided = list(decisions)
    p_correct = torch.tensor([targets[i].p_correct for i in decided], device=logits.device)
    biases = torch.tensor([targets[i].decline_bias for i in decided], device=logits.device)
    decline_tokens = [decision.token for decision in decisions.values()]
    odds, others = decline_odds(logits[decided], decline_tokens)
    odds = odds + biases if preference is None else preference * (odds - base_odds)
    declining = binary_cross_entropy_with_logits(odds, 1 - p_correct, reduction="sum")
    # normalise the answer's token over all tokens but the one that declines
    without_declining = (others - normalizer[decided]).sum()
    return losses + without_declining + declining


def _decisions(targets: Sequence[TargetToken]) -> dict[int, Decision]:
    """Return the decisions of some targets by their index."""
    return {i: target.decision for i, target in enumerate(targets) if target.decision}


def decline_odds(
    logits: torch.Tensor, decline_tokens: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-odds of declining, and the logsumexp of all else, both (positions,).

    `decline_tokens` has the token that begins a refusal for each position.
    """
    declining, other_logits = declining_and_others(logits, decline_tokens)
    others = other_logits.logsumexp(-1)
    return declining - others, others


def declining_and_others(
    logits: torch.Tensor, decline_tokens: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of declining, (positions,), and all logits with -inf in their place,
    (positions, vocabulary)."""
    columns = torch.tensor(decline_tokens, device=logits.device)[:, None]
    return logits.gather(1, columns)[:, 0], logits.scatter(1, columns, -math.inf)


@torch.no_grad()
def _teacher_targets(
    model: Any, teacher_rows: torch.Tensor, targets: Sequence[TargetToken]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the teacher's targets for some target tokens.

    rows           indices of the targets that are distilled, (distilled,)
    distributions  the base's probabilities there, (distilled, vocabulary); where the model may
                   decline, declining is left out of them
    base_odds      the base's log-odds of declining for each decision; 0 where that target is not
                   distilled
    """
    decisions = _decisions(targets)
    decided = list(decisions)
    base_odds = torch.zeros(len(decided), device=model.device)
    distilled = [i for i, target in enumerate(targets) if target.teacher_row is not None]
    if not distilled:
        vocabulary = len(base_model(model).get_output_embeddings().weight)
        no_rows = base_odds.new_zeros(0, dtype=torch.long)
        return no_rows, base_odds.new_zeros(0, vocabulary), base_odds
    wanted_rows = [target.teacher_row for target in targets if target.teacher_row is not None]
    logits = logits_of(model, teacher_rows[wanted_rows])
    distilled_decisions = [i for i in decided if targets[i].teacher_row is not None]
    if distilled_decisions:
        logit_rows = [distilled.index(i) for i in distilled_decisions]
        odds_rows = [decided.index(i) for i in distilled_decisions]
        decline_tokens = [decisions[i].token for i in distilled_decisions]
        base_odds[odds_rows] = decline_odds(logits[logit_rows], decline_tokens)[0]
        logits[logit_rows, decline_tokens] = -math.inf
    likeliest = logits.argmax(-1).tolist()
    # A revised answer is not the base's own: its tokens are learnt as they stand. A token that
    # declines never is: that would make it likelier without end.
    used = []
    for row, i in enumerate(distilled):
        decision = decisions.get(i)
        declines = decision is not None and decision.token == targets[i].token
        if declines or not targets[i].only_likeliest or likeliest[row] == targets[i].token:
            used.append(row)
    rows = torch.tensor([distilled[row] for row in used], dtype=torch.long, device=logits.device)
    return rows, logits[used].softmax(-1), base_odds


@torch.no_grad()
def teacher_states(
    model: Any, examples: Sequence[TokenizedExample], batch_size: int
) -> TeacherStates:
    """Return the base's states for all that is distilled: computed once, for the base is fixed."""
    prompt_lengths = {
        example.teacher_text: len(example.teacher_prompt)
        for example in examples
        if example.num_distilled
    }
    texts = in_like_order(prompt_lengths, batch_size)
    by_text = TeacherStates()
    with model.disable_adapter():
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            positions = [range(prompt_lengths[text] - 1, len(text)) for text in batch]
            states = last_hidden_states(model, batch, positions)
            parts = torch.split(states, [len(wanted) for wanted in positions])
            by_text |= zip(batch, parts, strict=True)
    return by_text


def neutral_positions(text: tuple[int, ...]) -> range:
    """Return every eighth position of a neutral text."""
    return range(KL_STRIDE - 1, len(text), KL_STRIDE)


@torch.no_grad()
def kl_references(
    model: Any, texts: Sequence[tuple[tuple[int, ...], Sequence[int]]]
) -> list[KlReference]:
    """Return texts with the base's hidden states; each comes with the positions to compare."""
    references = []
    with model.disable_adapter():
        for text, positions in texts:
            if positions:
                states = last_hidden_states(model, [text], [positions])
                references.append(KlReference(text, tuple(positions), states))
    return references


def kl_to_base(model: Any, references: Sequence[KlReference]) -> torch.Tensor:
    """Return KL(base || tuned), the mean over the positions of some neutral texts, in nats.

    In this direction the tuned model must cover all that the base would write.
    """
    with torch.no_grad(), model.disable_adapter():
        base_states = torch.cat([reference.states for reference in references])
        base = log_softmax(logits_of(model, base_states), -1)
    texts = [reference.tokens for reference in references]
    positions = [reference.positions for reference in references]
    tuned = log_softmax(logits_of(model, last_hidden_states(model, texts, positions)), -1)
    return kl_div(tuned, base, log_target=True, reduction="batchmean")
