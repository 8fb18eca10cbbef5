"""Which rows go into each call of `llama_decode`: continuous batching over shared prefixes.

A *family* is a prompt, read into the tree once, and the tasks that start from it; a *strand* is a
task at work, with a sequence of its own that shares the prompt's cells. What is done makes room for
what waits at once.
"""

from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from selfloop_plugins._decoding.sampling import Output
from selfloop_plugins._decoding.tasks import Job, Result, Task

from selfloop.errors import RequestError

from .cache import ROWS, Cache, Token
from .context import AHEAD
from .tree import Node, Tree

IDLE = 512  # cells of prompts which nobody shared that stay at the end of a run
# rows kept for prompts while there are any, so that a full house of strands does not starve them
PREFILL = 8
# a compaction costs about as much as so many calls that pass by as many dead cells as are live
PATIENCE = 2


@dataclass(eq=False, slots=True)
class Family:
    """A prompt at work."""

    prompt: list[int]
    tasks: deque[Task]  # not yet started
    leaf: Node
    # the model's, after the prompt, as long as tasks are to be started from it
    output: Output | None = None
    strands: "list[Strand]" = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Strand:
    """A task at work; `read` tokens of its own are in the cache."""

    family: Family
    task: Task
    sequence: int
    read: int = 0

    @property
    def start(self) -> int:
        """Return the position of its first own token."""
        return len(self.family.prompt)


@dataclass(slots=True)
class Call:
    """The rows of one call of `llama_decode`, and what they are for."""

    cache: Cache
    rows: list[Token] = field(default_factory=list)
    wanted: int = 0
    strands: list[tuple[Strand, int]] = field(default_factory=list)
    nodes: list[tuple[Node, int]] = field(default_factory=list)

    def fits(self, *, wanted: bool, spare: int = 0) -> bool:
        """Return whether there is room for one more row, and `spare` wanted rows beside it."""
        return self.cache.fits(len(self.rows) + 1 + spare, self.wanted + wanted + spare)

    def add(self, row: Token) -> None:
        """Take one more row."""
        self.rows.append(row)
        self.wanted += row.wanted


class Scheduler:
    """Runs jobs through a cache, which keeps their prompts for later ones.

    Nothing waits for itself: a strand starts only if all there are could grow to their full length.
    """

    def __init__(self, cache: Cache, *, limit: int, sequences: int, window: int) -> None:
        """Take a cache of more than `limit` + `ROWS` cells, of which `limit` are given out at a time."""
        self._cache, self._limit, self._sequences, self._window = cache, limit, sequences, window
        self._families: list[Family] = []
        self._strands: deque[Strand] = deque()  # the next call's rows are taken from the left
        self._results: list[tuple[int, Result]] = []
        self.clear()
        self.sharing = True  # switched off only to measure what it gives

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[int, Result]]:
        """Yield (a task's index, its result) as they finish. Every job must fit the limit by
        itself.

        Where a task raises RequestError, that is the one result of all tasks with its index.
        """
        # In lexical order prompts stand beside those which they share most with; the same prompt is
        # read once.
        waiting = deque(
            _merged(jobs)
            if self.sharing
            else [(prompt, [task]) for prompt, tasks in jobs for task in tasks]
        )
        try:
            while waiting or self._families:
                self._admit(waiting)
                self._step()
                for family in list(self._families):
                    self._settle(family, last=not waiting)
                yield from self._results
                self._results.clear()
        except GeneratorExit:  # only ever at the yield, where all is as it should be
            self._abandon()
            raise
        except BaseException:  # llama.cpp failed, or Ctrl-C came, who knows where
            self.clear()
            raise

    def clear(self) -> None:
        """Forget all prompts and all that is at work."""
        self._families.clear()
        self._strands.clear()
        self._results.clear()
        self._cache.reset()
        self._tree = Tree(self._cache, window=self._window, sequences=self._sequences)
        self._waste = 0

    def _admit(self, waiting: deque[Job]) -> None:
        """Let prompts in, in their order, as long as there are strands and cells that nobody else will want."""
        unstarted = sum(len(family.tasks) for family in self._families)
        while waiting and unstarted < self._sequences - len(self._strands) + AHEAD:
            prompt, tasks = waiting[0]
            room = max(
                [task.room for family in self._families for task in family.tasks]
                + [t.room for t in tasks]
            )
            leaf = self._tree.plant(prompt, self._limit - self._promised - room, share=self.sharing)
            if leaf is None:
                return
            waiting.popleft()
            self._families.append(Family(prompt, deque(tasks), leaf))
            unstarted += len(tasks)

    @property
    def _promised(self) -> int:
        """Return how many cells are in use when every strand has got as long as it may."""
        return self._tree.cells + sum(strand.task.room for strand in self._strands)

    def _step(self) -> None:
        """Run the model once: on what strands have to read, and on as much of the prompts as fits beside it."""
        self._make_room()  # first: it empties sequences that begin with what is not their own
        call = Call(self._cache)
        prompts = {family.leaf: family for family in self._families if not family.leaf.ready}
        for strand in list(self._strands):
            if not call.fits(wanted=True, spare=PREFILL if prompts else 0):
                break
            self._strands.rotate(-1)
            _add_strand(call, strand)
        for leaf in prompts:
            self._add_prompt(call, leaf, prompts)
        outputs = iter(self._cache.decode(call.rows))
        for strand, count in call.strands:
            self._took(strand, count, outputs)
        for node, count in call.nodes:
            node.read += count
            if node.ready and node in prompts:
                prompts[node].output = _copy(next(outputs))

    def _add_prompt(self, call: Call, leaf: Node, leaves: Container[Node]) -> None:
        """Add the first stretch on the way to a leaf that is not read yet, unless it is in this call already."""
        node = next(node for node in leaf.way() if not node.ready)
        if any(node is other for other, _ in call.nodes):
            return
        if not node.read:
            self._tree.begin(node)
        count = 0
        for i in range(node.read, len(node.tokens)):
            wanted = i + 1 == len(node.tokens) and node in leaves
            if not call.fits(wanted=wanted):
                break
            call.add(Token(node.tokens[i], node.start + i, node.sequence, wanted))
            count += 1
        if count:
            call.nodes.append((node, count))

    def _took(self, strand: Strand, count: int, outputs: Iterator[Output]) -> None:
        """Note that a strand's next tokens are read, and give it their outputs."""
        task = strand.task
        strand.read += count
        read, task.unread = task.unread[:count], task.unread[count:]
        for output in [next(outputs) for _, wanted in read if wanted]:
            # A sibling that has just failed has ended all strands of its request.
            if strand in strand.family.strands and not self._feed(strand.family, task, output):
                self._end(strand)

    def _feed(self, family: Family, task: Task, output: Output) -> bool:
        """Give a task an output; return whether it goes on."""
        try:
            task.take(output)
        except RequestError as error:
            self._results.append((task.index, error))
            family.tasks = deque(other for other in family.tasks if other.index != task.index)
            for strand in [
                s for s in family.strands if s.task.index == task.index and s.task is not task
            ]:
                self._end(strand)
            return False
        if task.result is not None:
            self._results.append((task.index, task.result))
        return task.result is None

    def _settle(self, family: Family, *, last: bool) -> None:
        """Start what tasks of a read prompt there is room for; let go of it when all are done."""
        while family.output and family.tasks and len(self._strands) < self._sequences:
            if self._promised + family.tasks[0].room > self._limit:
                break
            task = family.tasks.popleft()
            if self._feed(family, task, family.output):
                self._start(family, task)
        if not family.tasks:
            family.output = None  # it may be large
        if not family.tasks and not family.strands:
            self._families.remove(family)
            self._tree.leave(family.leaf)
            # Prompts come in lexical order: what has no prefix in common with its neighbours is of
            # no use to the rest of this run, and slows it. What is there at its end may be of use
            # to the next.
            self._tree.trim(fresh=IDLE if last else 0, limit=self._limit // 2)

    def _start(self, family: Family, task: Task) -> None:
        strand = Strand(family, task, self._cache.take())
        self._cache.fork(family.leaf.sequence, strand.sequence, strand.start)
        family.strands.append(strand)
        self._strands.append(strand)

    def _end(self, strand: Strand) -> None:
        strand.family.strands.remove(strand)
        self._strands.remove(strand)
        self._cache.drop(strand.sequence, strand.start)

    def _abandon(self) -> None:
        """Leave the cache as if what is unfinished had never been asked."""
        for strand in list(self._strands):
            self._end(strand)
        for family in self._families:
            self._tree.leave(family.leaf)
        self._families.clear()
        self._results.clear()

    def _make_room(self) -> None:
        """Compact the cache where the next call would not fit, or passing by dead cells has cost more than that."""
        live = sum(node.read for node in self._tree.nodes()) + sum(
            strand.read for strand in self._strands
        )
        self._waste += self._cache.top - live
        if self._cache.top + ROWS > self._cache.cells or self._waste > PATIENCE * live + ROWS:
            self._compact()
            self._waste = 0

    def _compact(self) -> None:
        cache = self._cache
        nodes = [
            (node, cache.save(node.sequence, node.start))
            for node in self._tree.nodes()
            if node.read
        ]
        strands = [
            (strand, cache.save(strand.sequence, strand.start))
            for strand in self._strands
            if strand.read
        ]
        cache.clear()
        for node, saved in nodes:
            cache.restore(node.sequence, saved, node.read)
            self._tree.begin(node)
        for strand, saved in strands:
            cache.restore(strand.sequence, saved, strand.read)
        for strand in self._strands:
            cache.fork(strand.family.leaf.sequence, strand.sequence, strand.start)


def _merged(jobs: Iterable[Job]) -> list[Job]:
    merged: dict[tuple[int, ...], Job] = {}
    for prompt, tasks in sorted(jobs, key=lambda job: job[0]):
        merged.setdefault(tuple(prompt), (prompt, []))[1].extend(tasks)
    return list(merged.values())


def _add_strand(call: Call, strand: Strand) -> None:
    count = 0
    for token, wanted in strand.task.unread:
        if not call.fits(wanted=wanted):
            break
        call.add(Token(token, strand.start + strand.read + count, strand.sequence, wanted))
        count += 1
    call.strands.append((strand, count))


def _copy(output: Output) -> Output:
    hidden = None if output.hidden is None else output.hidden.copy()
    return output._replace(logits=output.logits.copy(), hidden=hidden)
