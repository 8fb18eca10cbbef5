"""Tokens in, outputs out, in batches of one shape.

The last bits of a row of a matrix product depend on the shape of the product, and not on the other
rows. So every call of the model has one shape for each text, whatever is asked beside it:

* It has `batch` rows, some of them idle if need be.
* Prompts are read in chunks of `CHUNK` tokens from their beginning. The last chunk is filled up,
  and the filling stays in the cache as a hole that nothing looks at.
* Continuations that are written together have prompts of the same number of chunks.

Then a result depends on its request alone, as `selfloop.testing` demands. Chunks that several
prompts begin with are read once, for they come out the same bit for bit.

Masks are made here: transformers leaves a mask out if no row needs one, and then another kernel
runs.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, TypeVar

import numpy as np
import torch
from selfloop_plugins._decoding.sampling import Output, read_logits
from selfloop_plugins._decoding.tasks import Job, Result, Task, common_prefix
from transformers import DynamicCache

from selfloop.errors import ModelError, RequestError

from .model import cache_argument, head, trunk, windows

CHUNK = 32  # tokens
# of prompts and continuations whose keys and values are in memory at once
MAX_TOKENS_IN_MEMORY = 16_384
ATTENTION_KINDS = {"", "full_attention", "sliding_attention"}

# of each layer: keys and values, (heads, tokens, width)
KeysAndValues = list[tuple[torch.Tensor, torch.Tensor]]
Item = TypeVar("Item")


@dataclass(slots=True)
class Chunk:
    """Some tokens after other chunks, and the part of the cache that reading them left."""

    tokens: tuple[int, ...]
    before: "Chunk | None"
    cached: KeysAndValues = field(default_factory=list)

    def path(self) -> list["Chunk"]:
        """Return the chunks from the beginning to this one."""
        return [*(self.before.path() if self.before else []), self]


@dataclass(slots=True)
class Text:
    """A task, and the tokens that are known before anything is written.

    `wanted`: the positions of the tokens after which the task wants the output. `last`: the last
    chunk that was read.
    """

    task: Task
    tokens: list[int]
    wanted: list[int]
    last: Chunk | None = None

    @property
    def chunks(self) -> int:
        """Return how many chunks the tokens take."""
        return math.ceil(len(self.tokens) / CHUNK)


class Engine:
    """Runs a causal model. Raises ModelError for one whose attention it does not know."""

    def __init__(self, model: Any, batch: int) -> None:
        self._trunk, self._batch = trunk(model), batch
        self._head, self._cache_name = head(model), cache_argument(model)
        self._windows = windows(model.config.get_text_config())
        if unknown := set(self._windows) - ATTENTION_KINDS:
            has = f"{model.config.model_type} has {', '.join(unknown)}"
            raise ModelError(
                f"{has}, which the backend hf cannot batch. Take another model, or its GGUF by "
                "llama_cpp"
            )
        self._device = model.device
        # of attention in plain PyTorch, which adds its mask to the weights
        self._additive_masks = model.config._attn_implementation == "eager"
        self._lowest = torch.tensor(
            torch.finfo(model.dtype).min, dtype=model.dtype, device=model.device
        )

    @torch.inference_mode()
    def run(self, jobs: Sequence[Job], layer: int | None) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, its result) as they end.

        With a `layer`, outputs hold its states, and no logits.
        """
        texts: list[Text] = []
        for prompt, tasks in jobs:
            texts += _texts_of(prompt, tasks)
        # In lexical order, texts stand beside those which they share most chunks with.
        texts.sort(key=lambda text: text.tokens)
        for portion in _portions(texts):
            yield from self._read_prompts(portion, layer)
            unfinished = [text for text in portion if text.task.unread]
            # texts of about the same length end together, and leave no rows idle
            unfinished.sort(key=lambda text: (text.chunks, text.task.max_new_tokens))
            for _, same_chunks in groupby(unfinished, key=lambda text: text.chunks):
                for wave in _batches(same_chunks, self._batch):
                    yield from self._write_wave(wave)

    def _read_prompts(
        self, texts: Sequence[Text], layer: int | None
    ) -> Iterator[tuple[int, Result]]:
        """Read the known tokens of the texts, and feed the tasks.

        A level is a chunk's number from the beginning: the chunks of one level have one shape.
        """
        for level in range(max(text.chunks for text in texts)):
            chunks = _next_chunks(texts, level)
            for batch in _batches(chunks, self._batch):
                states = self._forward([chunk for chunk, _ in batch], level, layer)
                yield from self._feed(states, [sharers for _, sharers in batch], level, layer)

    def _forward(self, chunks: Sequence[Chunk], level: int, layer: int | None) -> torch.Tensor:
        """Read one chunk a row.

        Return the states of `layer`, or of the last one, (batch, CHUNK, width).
        """
        start, end = level * CHUNK, (level + 1) * CHUNK
        filled = [[*chunk.tokens, *[0] * (CHUNK - len(chunk.tokens))] for chunk in chunks]
        tokens = self._full_batch(torch.tensor(filled))
        cache = self._cache([chunk.before.path() if chunk.before else [] for chunk in chunks])
        # All chunks of a level begin at the same position: slot and position are one number here.
        slots = torch.arange(end, device=self._device)
        queries = slots[start:]
        causal = slots[None, :] <= queries[:, None]  # (CHUNK, slots)
        positions = queries.expand(self._batch, -1)
        masks = self._masks(
            causal.expand(self._batch, -1, -1), slots.expand(self._batch, -1), positions
        )
        states = self._call(tokens, positions, masks, cache, layer)
        for row, chunk in enumerate(chunks):
            # clones: a view would keep the whole batch's memory
            chunk.cached = [
                (keys[row, :, start:].clone(), values[row, :, start:].clone())
                for keys, values in _keys_and_values(cache)
            ]
        return states

    def _feed(
        self, states: torch.Tensor, texts: Sequence[Sequence[Text]], level: int, layer: int | None
    ) -> Iterator[tuple[int, Result]]:
        """Give tasks the outputs that they want after the tokens of one chunk.

        `texts` are, for each row of the batch, those that share its chunk. An output that several
        of them want is computed once.
        """
        start = level * CHUNK
        tasks_at: dict[tuple[int, int], list[Task]] = {}  # by row and column of `states`
        for row, sharers in enumerate(texts):
            for text in sharers:
                for position in text.wanted:
                    if start <= position < start + CHUNK:
                        tasks_at.setdefault((row, position - start), []).append(text.task)
        for batch in _batches(sorted(tasks_at), self._batch):
            rows, columns = zip(*batch, strict=True)
            outputs = self._outputs(states[list(rows), list(columns)], layer)
            for place, output in zip(batch, outputs, strict=True):
                for task in tasks_at[place]:
                    yield from _feed_task(task, output)

    def _write_wave(self, wave: Sequence[Text]) -> Iterator[tuple[int, Result]]:
        """Let up to `batch` tasks go on by a token at a time, until all are done.

        A row whose task is done reads token 0 from then on: the batch keeps its shape.
        """
        assert all(text.last for text in wave)
        cache = self._cache([text.last.path() for text in wave if text.last])
        lengths = self._full_batch(torch.tensor([len(text.tokens) for text in wave]))
        slots = torch.arange(wave[0].chunks * CHUNK, device=self._device)
        # (batch, slots): whether there is a token and not a hole, and its position in the text
        filled = slots[None, :] < lengths[:, None]
        positions = slots.expand(self._batch, -1)
        live = dict(enumerate(text.task for text in wave))
        step = 0
        while live:
            tokens = [live[row].unread.pop(0)[0] if row in live else 0 for row in range(len(wave))]
            now = (lengths + step)[:, None]  # positions of the new tokens, (batch, 1)
            filled = torch.cat([filled, torch.ones_like(now, dtype=torch.bool)], 1)
            positions = torch.cat([positions, now], 1)
            masks = self._masks(filled[:, None], positions, now)
            states = self._call(
                self._full_batch(torch.tensor(tokens))[:, None], now, masks, cache, None
            )
            for row, output in enumerate(self._outputs(states[: len(wave), 0], None)):
                if row in live:
                    yield from _feed_task(live[row], output)
                    if live[row].result is not None or not live[row].unread:
                        del live[row]
            step += 1

    def _call(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        masks: Any,
        cache: Any,
        layer: int | None,
    ) -> torch.Tensor:
        """Run the model on (batch, n) tokens; return the states of `layer`, (batch, n, width)."""
        inputs = {
            "input_ids": tokens,
            "position_ids": positions,
            "attention_mask": masks,
            self._cache_name: cache,
        }
        is_inner = layer not in (None, -1)
        outputs = self._trunk(**inputs, use_cache=True, output_hidden_states=is_inner)
        states: torch.Tensor = (
            outputs.hidden_states[layer] if is_inner else outputs.last_hidden_state
        )
        return states

    def _masks(self, visible: torch.Tensor, slots: torch.Tensor, queries: torch.Tensor) -> Any:
        """Return the masks, (batch, 1, queries, slots), for each kind of layer.

        `visible`, (batch, queries, slots): whether a query sees a slot without a window. `slots`
        and `queries` are positions, (batch, slots) and (batch, queries).
        """
        distance = queries[:, :, None] - slots[:, None, :]
        masks: dict[str, torch.Tensor] = {}
        for kind, window in self._windows.items():
            within = visible & (distance < window) if window else visible
            mask = within[:, None]
            masks[kind] = torch.where(mask, 0.0, self._lowest) if self._additive_masks else mask
        # transformers wants a mapping from a model whose layers have kinds
        if len(masks) > 1 or "sliding_attention" in masks:
            return masks
        return next(iter(masks.values()))

    def _cache(self, paths: Sequence[Sequence[Chunk]]) -> Any:
        """Return a cache with the keys and values of the paths, all of one length, a row each."""
        cache = DynamicCache()
        if not paths[0]:
            return cache
        for layer in range(len(paths[0][0].cached)):
            keys = torch.stack([_join_chunks(path, layer, 0) for path in paths])
            values = torch.stack([_join_chunks(path, layer, 1) for path in paths])
            cache.update(self._full_batch(keys), self._full_batch(values), layer)
        return cache

    def _full_batch(self, rows: torch.Tensor) -> torch.Tensor:
        """Return `batch` rows on the device: these, and the first one again for each idle row."""
        rows = rows.to(self._device)
        idle = self._batch - len(rows)
        return torch.cat([rows, rows[:1].expand(idle, *rows.shape[1:])]) if idle else rows

    def _outputs(self, states: torch.Tensor, layer: int | None) -> Iterable[Output]:
        """Return the output after each state, (rows, width)."""
        if layer is not None:
            for state in states.float().cpu().numpy():
                yield Output(np.empty(0, np.float32), 0, 0.0, state)
            return
        logits = self._head(self._full_batch(states))[: len(states)].cpu().numpy()
        scratch = np.empty(logits.shape[1], np.float32)
        for row in logits:
            yield read_logits(row, scratch)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _texts_of(prompt: Sequence[int], tasks: Sequence[Task]) -> Iterator[Text]:
    """Yield a text for each task, with all tokens that the task wants to be read."""
    for task in tasks:
        following = list(task.unread)
        task.unread.clear()
        wanted = [len(prompt) + i for i, (_, is_wanted) in enumerate(following) if is_wanted]
        tokens = [*prompt, *(token for token, _ in following)]
        yield Text(task, tokens, [len(prompt) - 1, *wanted])


def _next_chunks(texts: Sequence[Text], level: int) -> list[tuple[Chunk, list[Text]]]:
    """Return the chunks of a level, each with the texts that share it.

    Two texts share a chunk if their tokens are the same up to its end.
    """
    chunks: dict[tuple[int, tuple[int, ...]], tuple[Chunk, list[Text]]] = {}
    for text in texts:
        if text.chunks > level:
            tokens = tuple(text.tokens[level * CHUNK : (level + 1) * CHUNK])
            # the chunk before stands for all tokens before
            key = id(text.last), tokens
            chunk, sharers = chunks.setdefault(key, (Chunk(tokens, text.last), []))
            sharers.append(text)
            text.last = chunk
    return list(chunks.values())


def _portions(texts: Sequence[Text]) -> Iterator[list[Text]]:
    """Yield the texts in order, as many at a time as may be in memory at once."""
    portion, size = list[Text](), 0
    for text in texts:
        shared = common_prefix(portion[-1].tokens, text.tokens) if portion else 0
        new = len(text.tokens) - shared + text.task.max_new_tokens
        if portion and size + new > MAX_TOKENS_IN_MEMORY:
            yield portion
            portion, size = [], 0
        portion.append(text)
        size += new
    if portion:
        yield portion


def _feed_task(task: Task, output: Output) -> Iterator[tuple[int, Result]]:
    """Feed a task that is not done; yield its result if it is done now, or its error."""
    if task.result is not None:
        return
    try:
        task.receive(output)
    except RequestError as error:
        task.unread.clear()
        yield task.index, error
        return
    if task.result is not None:
        yield task.index, task.result


def _join_chunks(path: Sequence[Chunk], layer: int, side: int) -> torch.Tensor:
    """Return a layer's keys (side 0) or values (side 1) along a path, (heads, tokens, width)."""
    return torch.cat([chunk.cached[layer][side] for chunk in path], 1)


def _keys_and_values(cache: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield each layer's keys and values, (batch, heads, tokens, width)."""
    return ((layer.keys, layer.values) for layer in cache.layers)


def attentions(model: Any, texts: Mapping[int, tuple[list[int], int]]) -> Iterator[tuple[int, Any]]:
    """Yield by index how much each head attends to the token before, (layers, heads, tokens).

    A text is its tokens and how many of them are asked about, from the end. Each is read alone: its
    shape is its own.
    """
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the others never have the weights in memory
    try:
        for index, (tokens, count) in texts.items():
            with torch.inference_mode():
                inputs = torch.tensor([tokens], device=model.device)
                outputs = trunk(model)(input_ids=inputs, output_attentions=True, use_cache=False)
            # of each layer (1, heads, tokens, tokens): query and key
            queries = torch.arange(len(tokens) - count, len(tokens))
            to_previous = [
                weights[0, :, queries, queries - 1].float().cpu().numpy()
                for weights in outputs.attentions
            ]
            yield index, np.stack(to_previous)
    finally:
        model.set_attn_implementation(implementation)
