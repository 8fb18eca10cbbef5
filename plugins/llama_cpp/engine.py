"""The KV cache and the scheduler: many completions at once, each the same bits as if it ran alone.

Results must not depend on what else is in the batch, or a run that is resumed would end elsewhere than one
that was not interrupted. On the CPU of llama.cpp four things make them independent, down to the last bit:

1. Flash attention walks a row's own cells in the order they lie in and skips the others. (`backend.py` sets it.)
2. From 64 rows on it changes to another kernel: a call of `llama_decode` gets at most 56.
3. Matrix kernels change below 8 rows and treat a remainder of 8 differently. So each call is filled up with
   *ballast*, tokens of a sequence of its own, to a multiple of 8 rows; the same goes for the rows whose
   logits are wanted. Ballast comes last and is removed at once.
4. The cells of a sequence must lie in the order of its tokens, but llama.cpp fills holes first. So there are
   no holes: the cells of what has finished go to a sequence called the *grave*, and new cells are only ever
   taken at the top. When the top reaches the end, or much below it is dead, the cache is *compacted*: the live
   sequences are saved byte by byte, the cache is cleared, and they are put back in order.

What the prompts of a call have in common at their beginning (demonstrations, say) is read once, as the *trunk*
that every prompt is grafted on; the samples of a prompt share the prompt. For the reasons above neither
changes a bit of what comes out.
"""

import ctypes
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from selfloop.errors import ModelError, RequestError
from selfloop.records import Completion, Request

from .model import Model, lib
from .sampling import Row, Sampler

ROWS = 56  # of one llama_decode: the largest multiple of 8 below 64
STEP = 8
PREFILL_ROWS = 8  # kept for prompts while there are any, so that a full house of completions does not starve them
SLACK = 512  # dead cells that are not worth a compaction; attention looks at every cell up to the top


SPARE = 3  # sequences beside those of the completions: ballast, grave, trunk


def _up(n: int) -> int:
    return -(-n // STEP) * STEP


@dataclass(frozen=True, slots=True)
class Token:
    """One row of a batch."""

    id: int
    position: int
    sequence: int
    wanted: bool


def _common(prompts: Sequence[list[int]]) -> list[int]:
    """Return the tokens that two or more prompts all begin with; each has at least one more."""
    if len(prompts) < 2:
        return []
    first, last = min(prompts), max(prompts)  # in lexical order: what these two share, all share
    longest = min(map(len, prompts)) - 1
    length = next((i for i in range(longest) if first[i] != last[i]), longest)
    return first[:length]


def fits(rows: int, wanted: int) -> bool:
    """Return whether so many rows, of which so many with logits, and their ballast go into one call."""
    return _up(rows + _up(wanted) - wanted) <= ROWS


class Cache:
    """The cells of one llama.cpp context, filled from below without holes. Sequences are small numbers."""

    def __init__(self, context: Any, cells: int, sequences: int, vocab_size: int) -> None:
        self.context, self.cells, self.vocab_size = context, cells, vocab_size
        self.top = self.trunk = 0
        self._ballast, self._grave, self._trunk = range(sequences, sequences + SPARE)
        self._memory = lib.llama_get_memory(context)
        self._batch = lib.llama_batch_init(ROWS, 0, 1)

    def close(self) -> None:
        """Free the batch; the context is its owner's."""
        lib.llama_batch_free(self._batch)

    def clear(self) -> None:
        """Forget everything."""
        lib.llama_memory_clear(self._memory, False)
        self.top = self.trunk = 0

    def plant(self, tokens: Sequence[int]) -> None:
        """Read the tokens that all prompts begin with; `graft` gives them to a sequence."""
        for start in range(0, len(tokens), ROWS):
            part = tokens[start : start + ROWS]
            self.decode([Token(token, start + i, self._trunk, False) for i, token in enumerate(part)])
        self.trunk = len(tokens)

    def graft(self, sequence: int) -> None:
        """Let an empty sequence begin with the trunk."""
        self.fork(self._trunk, sequence, self.trunk)

    def decode(self, tokens: Sequence[Token]) -> NDArray[np.float32]:
        """Run the model; return the logits of the wanted rows, (wanted, vocabulary), valid until the next call."""
        wanted = sum(token.wanted for token in tokens)
        extra = _up(wanted) - wanted
        total = _up(len(tokens) + extra)
        ballast = [Token(0, i, self._ballast, i < extra) for i in range(total - len(tokens))]
        self._fill([*tokens, *ballast])
        status = int(lib.llama_decode(self.context, self._batch))
        if status:
            raise ModelError(f"llama_decode failed with status {status} at {self.top} of {self.cells} cells")
        if ballast:
            lib.llama_memory_seq_rm(self._memory, self._ballast, -1, -1)
        self.top += len(tokens)
        return self._logits(_up(wanted))[:wanted]

    def _fill(self, tokens: Sequence[Token]) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token.id, token.position, token.wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, token.sequence

    def _logits(self, rows: int) -> NDArray[np.float32]:
        if not rows:
            return np.empty((0, self.vocab_size), np.float32)
        pointer = lib.llama_get_logits(self.context)
        if not pointer:
            raise ModelError("the model gives no logits: it is no language model")
        return np.ctypeslib.as_array(pointer, shape=(rows, self.vocab_size))

    def fork(self, source: int, target: int, length: int) -> None:
        """Let `target` share the first `length` tokens of `source`."""
        lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def bury(self, sequence: int, start: int = 0) -> None:
        """Give up a sequence from position `start` on; its cells stay taken until the next compaction."""
        lib.llama_memory_seq_cp(self._memory, sequence, self._grave, start, -1)
        lib.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def compact(self, families: Iterable[tuple[int, Sequence[int]]]) -> None:
        """Keep only these (shared tokens, sequences that share them), in order and without holes."""
        trunk, common = self.trunk, self._save(self._trunk, 0)
        saved = [(shared, self._save_shared(shared, members), members) for shared, members in families]
        tails = {q: self._save(q, shared) for shared, _, members in saved for q in members}
        own = [shared - trunk + sum(max(0, self._length(q) - shared) for q in members) for shared, _, members in saved]
        self.clear()
        self._restore(self._trunk, common)
        self.trunk, self.top = trunk, trunk + sum(own)
        for shared, prompt, members in saved:
            self._restore(self._ballast, prompt)
            for q in members:
                self._restore(q, tails[q])
                self.graft(q)
                self.fork(self._ballast, q, shared)
            lib.llama_memory_seq_rm(self._memory, self._ballast, -1, -1)

    def _save_shared(self, shared: int, members: Sequence[int]) -> NDArray[np.uint8] | None:
        # In a copy that ends with the prompt: a longer sequence would leave out what its own sliding window hides.
        self.fork(members[0], self._ballast, shared)
        saved = self._save(self._ballast, self.trunk)
        lib.llama_memory_seq_rm(self._memory, self._ballast, -1, -1)
        return saved

    def _save(self, sequence: int, start: int) -> NDArray[np.uint8] | None:
        """Return a sequence's bytes from position `start` on, None for nothing; what lies before it is dropped."""
        if start:
            lib.llama_memory_seq_rm(self._memory, sequence, 0, start)
        if not self._length(sequence):
            return None
        buffer = np.empty(int(lib.llama_state_seq_get_size(self.context, sequence)), np.uint8)
        if not lib.llama_state_seq_get_data(self.context, _bytes(buffer), buffer.size, sequence):
            raise ModelError("llama.cpp cannot save a sequence")
        return buffer

    def _length(self, sequence: int) -> int:
        return int(lib.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def _restore(self, sequence: int, saved: NDArray[np.uint8] | None) -> None:
        if saved is None:
            return
        if not lib.llama_state_seq_set_data(self.context, _bytes(saved), saved.size, sequence):
            raise ModelError("llama.cpp cannot restore a sequence")


def _bytes(buffer: NDArray[np.uint8]) -> Any:
    return buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


@dataclass(slots=True)
class Job:
    """A request whose prompt is in tokens; `index` is its place in the caller's list."""

    index: int
    request: Request
    prompt: list[int]

    @property
    def numbers(self) -> list[int]:
        """Return which samples are wanted."""
        return [number for number in range(self.request.n) if number not in self.request.skip]

    @property
    def longest(self) -> int:
        """Return the cells that the prompt and one completion can take."""
        return len(self.prompt) + self.request.sampling.max_tokens


@dataclass(eq=False, slots=True)
class Family:
    """A job at work: its prompt lies in the cache once, shared by the samples that are being written."""

    job: Job
    numbers: list[int]  # of the samples that are wanted
    idle: list[int]  # sequences that hold the prompt (or will), and no sample
    trunk: int  # prompt tokens that it shares with all others
    read: int  # prompt tokens in the cache, the trunk's among them
    started: int = 0
    row: Row | None = None  # the logits after the prompt: every sample's first token is drawn from them
    live: "list[Sample]" = field(default_factory=list)

    @property
    def sequences(self) -> list[int]:
        """Return all its sequences; there is at least one as long as samples are wanted."""
        return [sample.sequence for sample in self.live] + self.idle

    @property
    def wanting(self) -> int:
        """Return how many more sequences it could use."""
        return max(0, len(self.numbers) - self.started - len(self.idle))

    @property
    def cells(self) -> int:
        """Return the cells in use, without the trunk's."""
        return self.read - self.trunk + sum(sample.decoded for sample in self.live)

    @property
    def reserved(self) -> int:
        """Return the cells in use when every sequence has got as long as it may."""
        return len(self.job.prompt) - self.trunk + len(self.sequences) * self.job.request.sampling.max_tokens

    def chunk(self, rows: int, wanted: int) -> list[Token]:
        """Return as many unread prompt tokens as go into a call beside `rows` others, `wanted` with logits."""
        prompt, found = self.job.prompt, list[Token]()
        for position in range(self.read, len(prompt)):
            last = position + 1 == len(prompt)
            if not fits(rows + len(found) + 1, wanted + last):
                break
            found.append(Token(prompt[position], position, self.idle[0], last))
        return found


@dataclass(eq=False, slots=True)
class Sample:
    """One completion being written."""

    family: Family
    number: int
    sequence: int
    sampler: Sampler
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: bytearray = field(default_factory=bytearray)

    @property
    def decoded(self) -> int:
        """Return its tokens in the cache; the last one drawn is not there yet."""
        return len(self.tokens) - 1

    def next_row(self) -> Token:
        """Return the row that reads the last token and asks for what follows it."""
        return Token(self.tokens[-1], len(self.family.job.prompt) + self.decoded, self.sequence, True)


Result = tuple[int, Completion | RequestError]
Finish = Literal["stop", "length"]


class Scheduler:
    """Runs jobs through a cache; a sequence that is done makes room for the next one at once.

    Nothing waits for itself: a sequence is given out only if all that are could grow to their full length.
    """

    def __init__(self, model: Model, cache: Cache, *, limit: int, sequences: int, adapter: str | None) -> None:
        """Take a cache of more than `limit` + 56 cells, of which `limit` are promised to jobs at a time."""
        self._model, self._cache, self._limit, self._adapter = model, cache, limit, adapter
        self._free = list(range(sequences))
        self._families: list[Family] = []
        self._writing: deque[Sample] = deque()  # the next call's rows are taken from the left
        self._results: list[Result] = []
        self._scratch = np.empty(model.vocab_size, np.float32)

    def run(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield (job's index, completion) as they finish. Every job must fit the limit by itself."""
        waiting = deque(jobs)
        self._cache.clear()
        self._cache.plant(_common([job.prompt for job in waiting]))
        while waiting or self._families:
            self._admit(waiting)
            self._step()
            for family in list(self._families):
                if family.row is not None:
                    self._settle(family)
            yield from self._results
            self._results.clear()

    def _admit(self, waiting: deque[Job]) -> None:
        """Let jobs in, in their order, as long as there are sequences and cells that nobody else will want."""
        wanting = sum(family.wanting for family in self._families)
        while waiting and len(self._free) > wanting and self._has_cells(waiting[0].longest - self._cache.trunk):
            job, sequence, trunk = waiting.popleft(), self._free.pop(), self._cache.trunk
            self._cache.graft(sequence)
            family = Family(job, job.numbers, [sequence], trunk, read=trunk)
            self._families.append(family)
            wanting += family.wanting

    def _has_cells(self, n: int) -> bool:
        return self._cache.trunk + sum(family.reserved for family in self._families) + n <= self._limit

    def _step(self) -> None:
        """Run the model once: a token for each sample that gets a row, and as much of the prompts as fits."""
        samples, chunks = self._choose()
        rows = [sample.next_row() for sample in samples] + [row for _, chunk in chunks for row in chunk]
        self._make_room()
        logits = iter(self._cache.decode(rows))
        for sample in samples:
            row = next(logits)
            if sample in sample.family.live:  # else a sibling has just failed, and all of them with it
                self._draw(sample, row)
        for family, chunk in chunks:
            family.read += len(chunk)
            if chunk[-1].wanted:
                family.row = next(logits).copy()

    def _choose(self) -> tuple[list[Sample], list[tuple[Family, list[Token]]]]:
        """Return the samples and the stretches of prompts that get rows in the next call."""
        reading = [family for family in self._families if family.row is None]
        space = min(ROWS - PREFILL_ROWS if reading else ROWS, len(self._writing))
        samples = [self._writing[i] for i in range(space)]
        self._writing.rotate(-space)
        rows, wanted, chunks = space, space, []
        for family in reading:
            if chunk := family.chunk(rows, wanted):
                chunks.append((family, chunk))
                rows += len(chunk)
                wanted += chunk[-1].wanted
        return samples, chunks

    def _make_room(self) -> None:
        """Compact the cache where the next call would not fit, or attention looks at too many dead cells."""
        live = self._cache.trunk + sum(family.cells for family in self._families)
        full = self._cache.top + ROWS > self._cache.cells and self._cache.top > live
        if full or self._cache.top > 2 * live + SLACK:
            self._cache.compact([(family.read, family.sequences) for family in self._families if family.read])

    def _settle(self, family: Family) -> None:
        """Start what samples of a read prompt there is room for; let go of what it has no more use for."""
        wanted = len(family.numbers)
        while family.started < wanted and (family.idle or self._free):
            if not family.idle and not self._fork(family):
                break
            self._start(family)
        if family.started == wanted:
            self._release(family.idle)
            family.idle = []
        if not family.sequences:
            self._families.remove(family)

    def _fork(self, family: Family) -> bool:
        """Give the family one more sequence, if there are cells for it."""
        if not self._has_cells(family.job.request.sampling.max_tokens):
            return False
        sequence = self._free.pop()
        self._cache.fork(family.sequences[0], sequence, len(family.job.prompt))
        family.idle.append(sequence)
        return True

    def _start(self, family: Family) -> None:
        """Begin the family's next sample on a sequence which holds the prompt."""
        request, number = family.job.request, family.numbers[family.started]
        sampler = Sampler(request.sampling, request.seed, number, self._scratch)
        sample = Sample(family, number, family.idle.pop(), sampler)
        family.started += 1
        family.live.append(sample)
        self._writing.append(sample)
        assert family.row is not None
        self._draw(sample, family.row)

    def _draw(self, sample: Sample, row: Row) -> None:
        """Add a token to a sample, and end it if that was the last."""
        try:
            token, logprob = sample.sampler.draw(row)
        except RequestError as error:
            self._give_up(sample.family, error)
            return
        sample.tokens.append(token)
        sample.logprobs.append(logprob)
        finish, length = self._finish(sample)
        if finish:
            text = sample.text[:length].decode("utf-8", "replace")
            tokens, logprobs = tuple(sample.tokens), tuple(sample.logprobs)
            done = Completion(text, tokens, logprobs, finish, sample.number, self._adapter)
            self._results.append((sample.family.job.index, done))
            self._end(sample)

    def _finish(self, sample: Sample) -> tuple[Finish | None, int]:
        """Take in the newest token's text; return whether and why it ends here, and after how many bytes."""
        settings, token, before = sample.sampler.sampling, sample.tokens[-1], len(sample.text)
        if self._model.ends(token):
            return "stop", before
        sample.text += self._model.piece(token)
        # In bytes, since a character may be spread over tokens; UTF-8 never matches inside a character.
        stops = [stop.encode("utf-8", "replace") for stop in settings.stop]
        found = [sample.text.find(stop, max(0, before - len(stop) + 1)) for stop in stops]
        if any(at >= 0 for at in found):
            return "stop", min(at for at in found if at >= 0)
        return "length" if len(sample.tokens) == settings.max_tokens else None, len(sample.text)

    def _end(self, sample: Sample) -> None:
        """Keep the prompt of a finished sample for its family, and bury the rest."""
        family = sample.family
        family.live.remove(sample)
        self._writing.remove(sample)
        self._cache.bury(sample.sequence, len(family.job.prompt))
        family.idle.append(sample.sequence)

    def _give_up(self, family: Family, error: RequestError) -> None:
        """Put the error in place of the completions which the family still owes."""
        self._results.append((family.job.index, error))
        for sample in list(family.live):
            self._end(sample)
        family.started = len(family.numbers)

    def _release(self, sequences: Sequence[int]) -> None:
        for sequence in sequences:
            self._cache.bury(sequence)
            self._free.append(sequence)
