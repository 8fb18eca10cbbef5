"""Tokens in, outputs out, in batches of one shape.

What a row of a matrix product comes to depends, in its last bits, on the shape of the product, and
not on the other rows. So every call of the model has `batch` rows, some of them idle if need be,
and a length that the row's own text says alone: prompts are read in chunks of `CHUNK` tokens from
their beginning, and continuations that are written together have prompts of as many chunks. Then a
result depends on its request alone, as `selfloop.testing` demands; and chunks that several prompts
begin with are read once, for they come out the same bit for bit.

A prompt's last chunk is filled up; what fills it stays in the cache as a hole that nothing looks
at. Masks are made here: transformers leaves a mask out where no row needs one, and then another
kernel runs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, TypeVar

import numpy as np
import torch
from selfloop_plugins._decoding.sampling import Output, read
from selfloop_plugins._decoding.tasks import Job, Result, Task, common
from transformers import DynamicCache

from selfloop.errors import ModelError, RequestError

from .model import cache_argument, head, trunk, windows

CHUNK = 32
AT_ONCE = 16_384  # tokens of prompts and continuations whose keys and values are held at once
KINDS = {"", "full_attention", "sliding_attention"}

# of each layer: keys and values, (heads, tokens, width)
Keys = list[tuple[torch.Tensor, torch.Tensor]]
Way = tuple[int, ...]
Item = TypeVar("Item")


@dataclass(slots=True)
class Chunk:
    """Some tokens after a way of others, and what reading them left in the cache."""

    tokens: Way
    before: "Chunk | None"
    kept: Keys = field(default_factory=list)

    def way(self) -> list["Chunk"]:
        """Return the chunks from the beginning to this one."""
        return [*(self.before.way() if self.before else []), self]


@dataclass(slots=True)
class Text:
    """A task, the tokens that are known before anything is written, and after which of them it wants the output."""

    task: Task
    tokens: list[int]
    wanted: list[int]
    last: Chunk | None = None

    @property
    def chunks(self) -> int:
        """Return how many chunks the tokens take."""
        return -(-len(self.tokens) // CHUNK)


class Engine:
    """Runs a causal model. Raises ModelError for one whose attention it does not know."""

    def __init__(self, model: Any, batch: int) -> None:
        self._trunk, self._batch = trunk(model), batch
        self._head, self._cache_name = head(model), cache_argument(model)
        self._windows = windows(model.config.get_text_config())
        if strange := set(self._windows) - KINDS:
            has = f"{model.config.model_type} has {', '.join(strange)}"
            raise ModelError(
                f"{has}, which the backend hf cannot batch. Take another model, or its GGUF by "
                "llama_cpp"
            )
        self._device = model.device
        # which adds its mask to the weights
        self._added = model.config._attn_implementation == "eager"
        self._lowest = torch.tensor(
            torch.finfo(model.dtype).min, dtype=model.dtype, device=model.device
        )

    @torch.inference_mode()
    def run(self, jobs: Sequence[Job], layer: int | None) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, its result) as they end; with a `layer`, outputs hold its states, and no logits."""
        texts = sorted(
            (text for prompt, tasks in jobs for text in _texts(prompt, tasks)),
            key=lambda t: t.tokens,
        )
        for some in _slices(texts):
            yield from self._read(some, layer)
            still = sorted(
                (t for t in some if t.task.unread), key=lambda t: (t.chunks, t.task.room)
            )
            for _, group in groupby(still, key=lambda t: t.chunks):
                for wave in _batches(group, self._batch):
                    yield from self._write(wave)

    def _read(self, texts: Sequence[Text], layer: int | None) -> Iterator[tuple[int, Result]]:
        """Read what is known of the texts, level by level, and feed the tasks."""
        for level in range(max(text.chunks for text in texts)):
            todo: dict[tuple[int, Way], tuple[Chunk, list[Text]]] = {}
            for text in (t for t in texts if t.chunks > level):
                tokens = tuple(text.tokens[level * CHUNK : (level + 1) * CHUNK])
                chunk, own = todo.setdefault(
                    (id(text.last), tokens), (Chunk(tokens, text.last), [])
                )
                own.append(text)
                text.last = chunk
            for some in _batches(todo.values(), self._batch):
                states = self._forward([chunk for chunk, _ in some], level, layer)
                yield from self._feed(states, [own for _, own in some], level, layer)

    def _forward(self, chunks: Sequence[Chunk], level: int, layer: int | None) -> torch.Tensor:
        """Read one chunk a row; return the states of `layer`, or the last, (batch, CHUNK, width)."""
        start, end = level * CHUNK, (level + 1) * CHUNK
        filled = [[*chunk.tokens, *[0] * (CHUNK - len(chunk.tokens))] for chunk in chunks]
        tokens = self._rows(torch.tensor(filled))
        cache = self._cache([chunk.before.way() if chunk.before else [] for chunk in chunks])
        slots = torch.arange(end, device=self._device)
        queries = slots[start:]
        seen = slots[None, :] <= queries[:, None]
        places = queries.expand(self._batch, -1)
        masks = self._masks(seen.expand(self._batch, -1, -1), slots.expand(self._batch, -1), places)
        states = self._call(tokens, places, masks, cache, layer)
        for row, chunk in enumerate(chunks):
            chunk.kept = [
                (k[row, :, start:].clone(), v[row, :, start:].clone()) for k, v in _held(cache)
            ]
        return states

    def _feed(
        self, states: torch.Tensor, texts: Sequence[Sequence[Text]], level: int, layer: int | None
    ) -> Iterator[tuple[int, Result]]:
        """Give the tasks what they want to know after the tokens of one chunk."""
        start = level * CHUNK
        asked: dict[tuple[int, int], list[Task]] = {}
        for row, own in enumerate(texts):
            for text in own:
                for place in text.wanted:
                    if start <= place < start + CHUNK:
                        asked.setdefault((row, place - start), []).append(text.task)
        for some in _batches(sorted(asked), self._batch):
            rows, places = zip(*some, strict=True)
            outputs = self._outputs(states[list(rows), list(places)], layer)
            for key, output in zip(some, outputs, strict=True):
                for task in asked[key]:
                    yield from _taken(task, output)

    def _write(self, wave: Sequence[Text]) -> Iterator[tuple[int, Result]]:
        """Let up to `batch` tasks go on by a token at a time, until all are done."""
        assert all(text.last for text in wave)
        ways = [text.last.way() for text in wave if text.last]
        cache = self._cache(ways)
        lengths = self._rows(torch.tensor([len(text.tokens) for text in wave]))
        slots = torch.arange(wave[0].chunks * CHUNK, device=self._device)
        there = slots[None, :] < lengths[:, None]  # (batch, slots): not a hole
        places = slots.expand(self._batch, -1)
        live = dict(enumerate(text.task for text in wave))
        step = 0
        while live:
            told = [live[row].unread.pop(0)[0] if row in live else 0 for row in range(len(wave))]
            now = (lengths + step)[:, None]
            there, places = (
                torch.cat([there, torch.ones_like(now, dtype=torch.bool)], 1),
                torch.cat([places, now], 1),
            )
            states = self._call(
                self._rows(torch.tensor(told))[:, None],
                now,
                self._masks(there[:, None], places, now),
                cache,
                None,
            )
            for row, output in enumerate(self._outputs(states[: len(wave), 0], None)):
                if row in live:
                    yield from _taken(live[row], output)
                    if live[row].result is not None or not live[row].unread:
                        del live[row]
            step += 1

    def _call(
        self, tokens: torch.Tensor, places: torch.Tensor, masks: Any, cache: Any, layer: int | None
    ) -> torch.Tensor:
        given = {
            "input_ids": tokens,
            "position_ids": places,
            "attention_mask": masks,
            self._cache_name: cache,
        }
        inner = layer not in (None, -1)
        found = self._trunk(**given, use_cache=True, output_hidden_states=inner)
        states: torch.Tensor = found.hidden_states[layer] if inner else found.last_hidden_state
        return states

    def _masks(self, seen: torch.Tensor, slots: torch.Tensor, queries: torch.Tensor) -> Any:
        """Return what each query may look at, for each kind of layer; `seen` is (batch, queries, slots)."""
        far = queries[:, :, None] - slots[:, None, :]
        found = {
            kind: (seen & (far < window) if window else seen)[:, None]
            for kind, window in self._windows.items()
        }
        if self._added:
            found = {kind: torch.where(may, 0.0, self._lowest) for kind, may in found.items()}
        return (
            found if len(found) > 1 or "sliding_attention" in found else next(iter(found.values()))
        )

    def _cache(self, ways: Sequence[Sequence[Chunk]]) -> Any:
        """Return a cache with the keys and values of the ways, all of one length, a row each."""
        cache = DynamicCache()
        if ways[0]:
            joined = [[torch.cat(parts, 1) for parts in _layers(way)] for way in ways]
            for layer in range(len(joined[0]) // 2):
                keys, values = (
                    torch.stack([way[2 * layer + side] for way in joined]) for side in (0, 1)
                )
                cache.update(self._rows(keys), self._rows(values), layer)
        return cache

    def _rows(self, some: torch.Tensor) -> torch.Tensor:
        """Return `batch` rows on the device: those given, and the first one over and over."""
        some = some.to(self._device)
        idle = self._batch - len(some)
        return torch.cat([some, some[:1].expand(idle, *some.shape[1:])]) if idle else some

    def _outputs(self, states: torch.Tensor, layer: int | None) -> Iterable[Output]:
        """Return the output after each state, (rows, width)."""
        if layer is not None:
            for state in states.float().cpu().numpy():
                yield Output(np.empty(0, np.float32), 0, 0.0, state)
            return
        logits = self._head(self._rows(states))[: len(states)].cpu().numpy()
        scratch = np.empty(logits.shape[1], np.float32)
        for row in logits:
            yield read(row, scratch)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _texts(prompt: Sequence[int], tasks: Sequence[Task]) -> Iterator[Text]:
    for task in tasks:
        known = list(task.unread)
        task.unread.clear()
        wanted = [len(prompt) + i for i, (_, wants) in enumerate(known) if wants]
        yield Text(task, [*prompt, *(token for token, _ in known)], [len(prompt) - 1, *wanted])


def _slices(texts: Sequence[Text]) -> Iterator[list[Text]]:
    """Yield the texts in order, some at a time: as many as may be in memory at once."""
    some, size = list[Text](), 0
    for text in texts:
        new = (
            len(text.tokens)
            - (common(some[-1].tokens, text.tokens) if some else 0)
            + text.task.room
        )
        if some and size + new > AT_ONCE:
            yield some
            some, size = [], 0
        some.append(text)
        size += new
    if some:
        yield some


def _taken(task: Task, output: Output) -> Iterator[tuple[int, Result]]:
    """Feed a task that is not done; yield its result if it is now, or what is wrong."""
    if task.result is not None:
        return
    try:
        task.take(output)
    except RequestError as error:
        task.unread.clear()
        yield task.index, error
        return
    if task.result is not None:
        yield task.index, task.result


def _layers(way: Sequence[Chunk]) -> list[list[torch.Tensor]]:
    """Return the parts of the first layer's keys, its values, the second layer's keys, and so on."""
    return [
        [chunk.kept[layer][side] for chunk in way]
        for layer in range(len(way[0].kept))
        for side in (0, 1)
    ]


def _held(cache: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return ((layer.keys, layer.values) for layer in cache.layers)


def attentions(model: Any, texts: Mapping[int, tuple[list[int], int]]) -> Iterator[tuple[int, Any]]:
    """Yield by index how much each head of each token looks at the one before, (layers, heads,
    tokens).

    A text is its tokens and how many of them are asked about, from the end. Each is read alone: its
    shape is its own.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the others never hold the weights
    try:
        for index, (tokens, count) in texts.items():
            with torch.inference_mode():
                given = torch.tensor([tokens], device=model.device)
                found = trunk(model)(
                    input_ids=given, output_attentions=True, use_cache=False
                ).attentions
            ends = torch.arange(len(tokens) - count, len(tokens))
            yield (
                index,
                np.stack([layer[0, :, ends, ends - 1].float().cpu().numpy() for layer in found]),
            )
    finally:
        model.set_attn_implementation(before)
