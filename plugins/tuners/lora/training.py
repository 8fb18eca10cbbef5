"""The training loop: loss and logits at the answers' tokens only, batches of like length, KL to the
base.

The output layer of a model with 262,144 tokens is most of the work: it is computed for the tokens
that are learnt, and for a few of the neutral text, and for no others. Tokens with which all texts
of a batch begin, such as demonstrations, are read once for all of them, and what flows back to them
is summed. A checkpoint is written after every epoch, whole or not at all; every batch draws from a
seed of its own, so a training that was killed goes on as if nothing had been.
"""

import json
import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from selfloop_plugins._decoding.tasks import common_prefix
from selfloop_plugins._torch.model import cache_argument, head, trunk
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, log_softmax

from selfloop.errors import ModelError
from selfloop.storage import atomic

CHECKPOINT = "last.safetensors"
STATE = "state"  # the checkpoint's metadata: which training it is of, and what its epochs came to
# what the names of its tensors begin with
WEIGHTS, BEST, MOMENTS = "weights/", "best/", "optimizer/"
TURNS = 4  # times an epoch that the dial is set
# right answers to be expected among what is held out: fewer say nothing of where to set it
ENOUGH = 4.0
# tokens whose logits there are at a time: with 262,144 of them, 34 MB for each thing made of them
PIECE = 32
SHARED = 16  # tokens that a batch begins with are read apart only if there are so many

_log = logging.getLogger("selfloop.tune")


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens, and where among them begins what is learnt: that very text, or how the base would go
    on.

    With `chance`, how likely an answer is to be given here, and not declined. `source` is what the
    base reads in place of what comes before, `own` how many of the tokens are learnt as it
    distributes them (self-distillation); with `firm`, only those that it finds likeliest, and the
    others as they stand.
    """

    tokens: tuple[int, ...]
    start: int
    chance: float | None = None
    source: tuple[int, ...] = ()
    own: int = 0
    firm: bool = False

    @property
    def followed(self) -> tuple[int, ...]:
        """Return what the base reads where its distribution is learnt, or nothing."""
        return (
            (*self.source, *self.tokens[self.start : self.start + self.own - 1]) if self.own else ()
        )


# the base's last hidden states behind what it reads, (own, width)
Followed = dict[tuple[int, ...], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Learnt:
    """A token of an answer that is learnt: the row of the base's states that go on with it, where
    these are followed, and where the answer begins, how likely it is to be given."""

    token: int
    own: int | None
    firm: bool
    chance: float | None


@dataclass(frozen=True, slots=True)
class Anchor:
    """Neutral text, some places in it, and the base's last hidden states there: what a tuned model is held to."""

    tokens: tuple[int, ...]
    places: tuple[int, ...]
    states: torch.Tensor


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train. `batch` is in examples; `kl` is the weight of the divergence from the base on
    neutral text.

    `decline` is the first token of declining, and `keep` the share of right answers that must not
    give way to it.
    """

    epochs: int = 3
    batch: int = 16
    rate: float = 2e-4
    warmup: float = 0.1
    kl: float = 0.1
    neutral: int = 2
    patience: int = 1
    seed: int = 0
    decline: int = 0
    keep: float | None = None
    preference: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is: the losses are means over the epoch.

    `dial` is what was added to declining in training.
    """

    epoch: int
    loss: float
    kl: float
    held: float
    dial: float = 0.0


def train(
    wrapped: Any,
    examples: Sequence[Example],
    held: Sequence[Example],
    neutral: Sequence[tuple[int, ...]],
    settings: Settings,
    folder: Path,
    tell: Callable[[Progress], None],
    learnt: Callable[[int, int, float], None] = lambda done, of, loss: None,
) -> list[Progress]:
    """Train the adapter of a model that peft has wrapped, in place; return what each epoch came to.

    Ends when the held-out loss has not fallen for `patience` epochs, with the weights of the best
    epoch. `folder` keeps the last checkpoint: a second call with the same arguments goes on from
    there. `tell` hears of each epoch, `learnt` of each batch: its number, how many there are in all
    epochs, its loss. Raises ModelError where the loss is not a number, OSError where the disk is
    full.
    """
    weights = {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(weights.values(), lr=settings.rate, weight_decay=0.0)
    mark = fingerprint(examples, held, neutral, settings)
    done, best = _resumed(folder, mark, weights, optimizer)
    if _goes_on(done, settings):
        held_to = anchors(wrapped, neutral if settings.kl else ())
        base = followed(wrapped, [*examples, *held], settings.batch)
    while _goes_on(done, settings):
        progress = _epoch(wrapped, optimizer, examples, held, base, held_to, settings, done, learnt)
        if progress.held <= min((one.held for one in done), default=math.inf):
            best = _copied(weights)
        done.append(progress)
        _save(folder, mark, done, weights, best, optimizer)
        tell(progress)
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(best[name])
    wrapped.eval()
    return done


def _epoch(
    wrapped: Any,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    held: Sequence[Example],
    base: Followed,
    held_to: Sequence[Anchor],
    settings: Settings,
    done: Sequence[Progress],
    learnt: Callable[[int, int, float], None],
) -> Progress:
    """Go through the examples once; `done` are the epochs before."""
    losses, divergences = [], []
    groups = batches(examples, settings.batch, settings.seed + len(done))
    dial = done[-1].dial if done else 0.0
    chances = [one.chance or 0.0 for one in held]
    for number, batch in enumerate(groups):
        step = len(done) * len(groups) + number
        if (
            settings.keep
            and sum(chances) >= ENOUGH
            and step
            and not number % -(-len(groups) // TURNS)
        ):
            dial += turned(
                ahead(wrapped, held, settings.decline, settings.batch), chances, settings.keep
            )
        wrapped.train()
        _set_rate(optimizer, settings, step, settings.epochs * len(groups))
        torch.manual_seed(settings.seed * 1_000_003 + step)
        loss = answer_loss(wrapped, batch, base, settings.decline, dial, settings.preference)
        far = divergence(wrapped, _some(held_to, settings, step)) if held_to else loss.new_zeros(())
        (loss + settings.kl * far).backward()
        if not math.isfinite(value := loss.item()):
            raise ModelError(
                f"the loss is {value} in step {step + 1}: lower the tuner's rate ({settings.rate})"
            )
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value)
        divergences.append(far.item())
        learnt(step + 1, settings.epochs * len(groups), value)
    apart = held_loss(wrapped, held, base, settings.batch, settings.decline, dial)
    return Progress(len(done) + 1, _mean(losses), _mean(divergences), apart, dial)


def _copied(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in weights.items()}


def answer_loss(
    model: Any,
    batch: Sequence[Example],
    base: Followed,
    decline: int = 0,
    dial: float = 0.0,
    preference: float | None = None,
) -> torch.Tensor:
    """Return the mean loss of the answers' tokens; logits are computed for these alone, and for a
    few at a time.

    A token's loss is its cross entropy, or that to the distribution of the base, which is
    `followed` there. Where an answer begins, that is meant of everything but the token `decline`,
    and how likely this one is is learnt beside it. `dial` is added to its logit (logit adjustment,
    Menon et al. 2020, arXiv 2007.07314): a model that is right with it declines the less without.
    With `preference`, not how likely it is, but whether it is preferred: `preference` times how
    much likelier it got is the logit of that (DPO, Rafailov et al. 2023, arXiv 2305.18290, with the
    chance as a soft label).
    """
    tokens = _learnt(batch)
    places = [range(one.start - 1, len(one.tokens) - 1) for one in batch]
    states = _states(model, [one.tokens for one in batch], places)
    before = torch.cat([base[one.followed] for one in batch if one.own] or [states.new_zeros(0)])
    cut = states.detach().requires_grad_(states.requires_grad)
    value = states.new_zeros((), dtype=torch.float32)
    for i in range(0, len(tokens), PIECE):
        piece = cut[i : i + PIECE]
        loss = _loss(model, piece, before, tokens[i : i + PIECE], decline, dial, preference) / len(
            tokens
        )
        if loss.requires_grad:
            loss.backward()  # as far as the states: the logits can go
        value += loss.detach()
    return value if cut.grad is None else value + ((states - states.detach()) * cut.grad).sum()


def _learnt(batch: Sequence[Example]) -> list[Learnt]:
    """Return what is learnt of a batch, token by token."""
    found, row = list[Learnt](), 0
    for one in batch:
        for i, token in enumerate(one.tokens[one.start :]):
            found.append(
                Learnt(token, row + i if i < one.own else None, one.firm, None if i else one.chance)
            )
        row += one.own
    return found


@torch.no_grad()
def followed(model: Any, examples: Sequence[Example], size: int) -> Followed:
    """Return what the base makes of all that is learnt as it distributes it: once, for it does not change."""
    texts = {one.followed: len(one.source) for one in examples if one.own}
    alike = sorted(texts, key=lambda text: (len(text), text))
    found = Followed()
    with model.disable_adapter():
        for i in range(0, len(alike), size):
            some = alike[i : i + size]
            places = [range(texts[text] - 1, len(text)) for text in some]
            states = torch.split(_states(model, some, places), [len(own) for own in places])
            found |= zip(some, states, strict=True)
    return found


def _loss(
    model: Any,
    states: torch.Tensor,
    base: torch.Tensor,
    tokens: Sequence[Learnt],
    decline: int,
    dial: float,
    preference: float | None,
) -> torch.Tensor:
    """Return the summed loss of some tokens, with the states that say them."""
    logits = head(_inner(model))(states)
    rows, targets, before = _targets(model, base, tokens, decline)
    wanted = logits.gather(1, torch.tensor([[one.token] for one in tokens], device=logits.device))[
        :, 0
    ]
    wanted = wanted.index_put((rows,), torch.linalg.vecdot(logits[rows], targets))
    whole = logits.logsumexp(-1)
    losses = (whole - wanted).sum()
    begins = [i for i, one in enumerate(tokens) if one.chance is not None]
    if not begins:
        return losses
    chances = torch.tensor(
        [one.chance for one in tokens if one.chance is not None], device=logits.device
    )
    odds, others = _odds(logits[begins], decline)
    odds = odds + dial if preference is None else preference * (odds - before)
    declines = binary_cross_entropy_with_logits(odds, 1 - chances, reduction="sum")
    among = (others - whole[begins]).sum()  # what the answer's own loss is without declining
    return losses + among + declines


def _odds(logits: torch.Tensor, decline: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-odds of declining, and the logarithm of what all else has."""
    out = torch.zeros_like(logits[0])
    out[decline] = -math.inf
    others = (logits + out).logsumexp(-1)
    return logits[:, decline] - others, others


@torch.no_grad()
def _targets(
    model: Any, base: torch.Tensor, tokens: Sequence[Learnt], decline: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return which tokens are learnt as the base distributes them, and how it does, (some,
    vocabulary).

    Last come its log-odds of declining where an answer begins, 0 where it is not asked. Elsewhere
    its probabilities leave declining out there.
    """
    begins = [i for i, one in enumerate(tokens) if one.chance is not None]
    odds = torch.zeros(len(begins), device=model.device)
    some = [i for i, one in enumerate(tokens) if one.own is not None]
    if not some:
        size = len(_inner(model).get_output_embeddings().weight)
        return odds.new_zeros(0, dtype=torch.long), odds.new_zeros(0, size), odds
    scores = head(_inner(model))(base[[one.own for one in tokens if one.own is not None]])
    if first := [i for i in begins if tokens[i].own is not None]:
        own = [some.index(i) for i in first]
        odds[[begins.index(i) for i in first]] = _odds(scores[own], decline)[0]
        scores[own, decline] = -math.inf
    likeliest = scores.argmax(-1).tolist()
    kept = [j for j, i in enumerate(some) if not tokens[i].firm or likeliest[j] == tokens[i].token]
    rows = torch.tensor([some[j] for j in kept], dtype=torch.long, device=scores.device)
    return rows, scores[kept].softmax(-1), odds


@torch.no_grad()
def _begun(model: Any, some: Sequence[Example]) -> torch.Tensor:
    """Return the logits where the answers begin."""
    texts = [one.tokens[: one.start] for one in some]
    return head(_inner(model))(_states(model, texts, [[len(text) - 1] for text in texts]))


@torch.no_grad()
def greedy(
    model: Any, some: Sequence[Example], decline: int, batch: int
) -> list[tuple[bool, bool]]:
    """Return whether greedy decoding declines, and whether it says an example's own tokens, for each."""
    model.eval()
    found: list[tuple[bool, bool]] = []
    for i in range(0, len(some), batch):
        group = some[i : i + batch]
        places = [range(one.start - 1, len(one.tokens) - 1) for one in group]
        best = iter(
            head(_inner(model))(_states(model, [one.tokens for one in group], places))
            .argmax(-1)
            .tolist()
        )
        said = [[next(best) for _ in own] for own in places]
        found += [
            (own[0] == decline, own == [*one.tokens[one.start :]])
            for own, one in zip(said, group, strict=True)
        ]
    return found


@torch.no_grad()
def perplexity(model: Any, texts: Sequence[tuple[int, ...]]) -> float:
    """Return the perplexity of texts, of each token but the first; 1 where there are none."""
    model.eval()
    logs: list[float] = []
    for text in texts:
        scores = head(_inner(model))(_states(model, [text], [range(len(text) - 1)])).log_softmax(-1)
        logs += scores.gather(1, torch.tensor(text[1:], device=scores.device)[:, None])[
            :, 0
        ].tolist()
    return math.exp(-sum(logs) / len(logs)) if logs else 1.0


@torch.no_grad()
def ahead(model: Any, some: Sequence[Example], decline: int, batch: int) -> list[float]:
    """Return by how much declining is likelier than any other beginning of an answer, in nats."""
    model.eval()
    found: list[float] = []
    for i in range(0, len(some), batch):
        logits = _begun(model, some[i : i + batch])
        own = logits[:, decline].clone()
        logits[:, decline] = -math.inf
        found += (own - logits.max(-1).values).tolist()
    return found


def turned(margins: Sequence[float], chances: Sequence[float], keep: float) -> float:
    """Return how much less likely declining must get, in nats, so that the share `keep` of right
    answers is given.

    `chances` say how likely each answer is right: no label is needed.
    """
    order = sorted(zip(margins, chances, strict=True))
    given = 0.0
    for margin, chance in order:
        given += chance
        if given >= keep * sum(chances):
            return margin
    return 0.0


@torch.no_grad()
def held_loss(
    model: Any,
    held: Sequence[Example],
    base: Followed,
    batch: int,
    decline: int = 0,
    dial: float = 0.0,
) -> float:
    """Return the mean loss over batches of examples that are not trained on; 0 where there are none."""
    model.eval()
    groups = [held[i : i + batch] for i in range(0, len(held), batch)]
    return _mean([answer_loss(model, some, base, decline, dial).item() for some in groups])


def fingerprint(*what: Any) -> str:
    """Return what tells one training from another."""
    plain = [
        asdict(one) if isinstance(one, Settings) else [repr(each) for each in one] for one in what
    ]
    return blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _states(
    model: Any, texts: Sequence[tuple[int, ...]], places: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return the last hidden states at some places of each text, (places of all texts, width)."""
    inner = _inner(model)
    shared = min(begin_alike(texts), *(min(own) for own in places))
    if len(texts) < 2 or shared < SHARED:  # not worth a pass of its own
        shared = 0
    kept: dict[str, Any] = {"use_cache": False}
    if shared:
        first = torch.tensor([list(texts[0][:shared])], device=model.device)
        name = cache_argument(inner)
        cache = trunk(inner)(input_ids=first, use_cache=True)[name]
        cache.batch_repeat_interleave(len(texts))
        kept = {"use_cache": True, name: cache}
    longest = max(map(len, texts))
    tokens = torch.tensor(
        [[*text[shared:], *[0] * (longest - len(text))] for text in texts], device=model.device
    )
    there = torch.tensor(
        [[1] * len(text) + [0] * (longest - len(text)) for text in texts], device=model.device
    )
    states: torch.Tensor = trunk(inner)(
        input_ids=tokens, attention_mask=there, **kept
    ).last_hidden_state
    rows = [row for row, own in enumerate(places) for _ in own]
    return states[rows, [place - shared for own in places for place in own]]


def begin_alike(texts: Sequence[tuple[int, ...]]) -> int:
    """Return how many tokens all texts begin with."""
    return common_prefix(min(texts), max(texts))  # in lexical order: what these share, all share


@torch.no_grad()
def anchors(model: Any, texts: Sequence[tuple[int, ...]]) -> list[Anchor]:
    """Return neutral texts with what the base makes of them at every eighth token: neighbours say much the same."""
    found = []
    with model.disable_adapter():
        for text in texts:
            if places := range(7, len(text), 8):
                found.append(Anchor(text, tuple(places), _states(model, [text], [places])))
    return found


def divergence(model: Any, some: Sequence[Anchor]) -> torch.Tensor:
    """Return KL(base || tuned) a token, at the places of the anchors."""
    logits = head(_inner(model))
    with torch.no_grad(), model.disable_adapter():
        base = log_softmax(logits(torch.cat([one.states for one in some])), -1)
    tuned = log_softmax(
        logits(_states(model, [one.tokens for one in some], [one.places for one in some])), -1
    )
    return kl_div(tuned, base, log_target=True, reduction="batchmean")


def batches(examples: Sequence[Example], size: int, seed: int) -> list[list[Example]]:
    """Return batches of examples of like length, in any order: none is more than twice as long as
    another beside it.

    A bare question beside one with demonstrations would be padded to its length, and what these
    share read each time.
    """
    rng = random.Random(seed)
    groups: list[list[Example]] = []
    for one in sorted(examples, key=lambda one: (len(one.tokens), rng.random())):
        if not groups or len(groups[-1]) == size or len(one.tokens) > 2 * len(groups[-1][0].tokens):
            groups.append([])
        groups[-1].append(one)
    rng.shuffle(groups)
    return groups


def _some(held_to: Sequence[Anchor], settings: Settings, step: int) -> list[Anchor]:
    return random.Random(settings.seed + step).sample(
        list(held_to), min(settings.neutral, len(held_to))
    )


def _set_rate(optimizer: Any, settings: Settings, step: int, total: int) -> None:
    """Rise for the first tenth, then fall to zero along a cosine."""
    rising = max(1, round(settings.warmup * total))
    share = (
        (step + 1) / rising
        if step < rising
        else 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))
    )
    for group in optimizer.param_groups:
        group["lr"] = settings.rate * share


def _goes_on(done: Sequence[Progress], settings: Settings) -> bool:
    values, patience = [one.held for one in done], settings.patience
    risen = len(values) > patience and min(values[-patience:]) > min(values[:-patience])
    return len(values) < settings.epochs and not risen


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _save(
    folder: Path,
    mark: str,
    done: Sequence[Progress],
    weights: dict[str, Any],
    best: dict[str, Any],
    optimizer: Any,
) -> None:
    """Write a checkpoint in place of the last one: one file of safetensors, for a pickle could hold a program."""
    moments = {}
    for i, parameter in enumerate(weights.values()):
        for key, value in optimizer.state[parameter].items():
            moments[f"{i}.{key}"] = value
    parts = {WEIGHTS: weights, BEST: best, MOMENTS: moments}
    tensors = {}
    for part, named in parts.items():
        for name, tensor in named.items():
            tensors[f"{part}{name}"] = tensor.detach().clone().contiguous()
    state = json.dumps({"mark": mark, "done": [asdict(progress) for progress in done]})
    with atomic.replacing(folder / CHECKPOINT, parents=True) as file:
        save_file(tensors, file, metadata={STATE: state})


def _resumed(
    folder: Path, mark: str, weights: dict[str, Any], optimizer: Any
) -> tuple[list[Progress], dict[str, Any]]:
    """Put the last checkpoint of this very training into effect; return what its epochs came to,
    and the best weights.

    Without one, or with one that is damaged, training begins anew, and comes to the same.
    """
    file = folder / CHECKPOINT
    if not file.is_file():
        return [], _copied(weights)
    try:
        with safe_open(file, "pt") as opened:
            state = json.loads((opened.metadata() or {})[STATE])
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        _log.warning("%s is damaged, so training begins anew: %s", file, error)
        return [], _copied(weights)
    if state["mark"] != mark:
        return [], _copied(weights)
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(tensors[f"{WEIGHTS}{name}"])
    moments = _named(tensors, MOMENTS)
    for i, p in enumerate(weights.values()):
        own = _named(moments, f"{i}.")
        optimizer.state[p] = {
            key: value.to(p.device) if key != "step" else value for key, value in own.items()
        }
    return [Progress(**progress) for progress in state["done"]], _named(tensors, BEST)


def _named(tensors: dict[str, Any], begin: str) -> dict[str, Any]:
    """Return the tensors whose names begin so, by the rest of their names."""
    return {
        name.removeprefix(begin): tensor
        for name, tensor in tensors.items()
        if name.startswith(begin)
    }
