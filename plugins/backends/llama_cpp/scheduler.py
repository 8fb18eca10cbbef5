"""Which rows go into each call of `llama_decode`: continuous batching over shared prefixes.

A *group* is a prompt, read into the tree once, and the tasks that start from it. A *slot* is a task
at work, with a sequence of its own that shares the prompt's cells. When a task is done, a waiting
one takes its place at once.
"""

from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from selfloop_plugins._decoding.sampling import Output
from selfloop_plugins._decoding.tasks import Job, Result, Task

from selfloop.errors import RequestError

from .cache import MAX_ROWS, Cache, Token
from .context import PROMPTS_AHEAD
from .tree import Node, PrefixTree

# of prompts which nobody shared, at the end of a run: the next call may share them
MAX_IDLE_CELLS = 512
# rows kept for prompts while there are any, so that slots at work do not starve them
PREFILL_ROWS = 8
# in calls: a compaction costs about as much as so many calls that pass by as many dead cells as
# there are live ones
COMPACTION_COST = 2


@dataclass(eq=False, slots=True)
class PromptGroup:
    """A prompt at work."""

    prompt: list[int]
    tasks: deque[Task]  # not yet started
    leaf: Node  # of the tree, where the prompt ends
    # of the model after the prompt, as long as tasks are to be started from it
    output: Output | None = None
    slots: "list[Slot]" = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Slot:
    """A task at work; `read` tokens of its own are in the cache."""

    group: PromptGroup
    task: Task
    sequence: int
    read: int = 0

    @property
    def start(self) -> int:
        """Return the position of its first own token."""
        return len(self.group.prompt)


@dataclass(slots=True)
class Call:
    """The rows of one call of `llama_decode`, and for whom they are read.

    `wanted` counts the rows with logits. `slots` and `nodes` come with their numbers of rows.
    """

    cache: Cache
    rows: list[Token] = field(default_factory=list)
    wanted: int = 0
    slots: list[tuple[Slot, int]] = field(default_factory=list)
    nodes: list[tuple[Node, int]] = field(default_factory=list)

    def fits(self, *, wanted: bool, spare: int = 0) -> bool:
        """Return whether one more row fits, and `spare` wanted rows beside it."""
        return self.cache.fits(len(self.rows) + 1 + spare, self.wanted + wanted + spare)

    def add_row(self, row: Token) -> None:
        """Take one more row."""
        self.rows.append(row)
        self.wanted += row.wanted


class Scheduler:
    """Runs jobs through a cache, which keeps their prompts for later ones.

    There is no deadlock: a slot starts only if all slots could grow to their full length.
    """

    def __init__(self, cache: Cache, *, limit: int, sequences: int, window: int) -> None:
        """Take a cache of more than `limit` + `MAX_ROWS` cells; `limit` are given out at a time.

        `sequences` is the most slots, `window` the model's sliding window (0 for none).
        """
        self._cache, self._limit, self._sequences, self._window = cache, limit, sequences, window
        self._groups: list[PromptGroup] = []
        self._slots: deque[Slot] = deque()  # the next call's rows are taken from the left
        self._results: list[tuple[int, Result]] = []
        self.clear()
        self.sharing = True  # switched off only to measure its gain

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[int, Result]]:
        """Yield (a task's index, its result) as they finish.

        Every job must fit the limit by itself. If a task raises RequestError, that is the one
        result of all tasks with its index.
        """
        waiting = deque(_merged(jobs) if self.sharing else _one_task_each(jobs))
        try:
            while waiting or self._groups:
                self._admit(waiting)
                self._run_once()
                for group in list(self._groups):
                    self._settle(group, last=not waiting)
                yield from self._results
                self._results.clear()
        except GeneratorExit:  # only ever at the yield, where the cache is consistent
            self._abandon()
            raise
        except BaseException:  # llama.cpp failed, or Ctrl-C came, who knows where
            self.clear()
            raise

    def clear(self) -> None:
        """Forget all prompts and all that is at work."""
        self._groups.clear()
        self._slots.clear()
        self._results.clear()
        self._cache.reset()
        self._tree = PrefixTree(self._cache, window=self._window, sequences=self._sequences)
        self._wasted_cells = 0  # dead cells, summed over the calls since the last compaction

    def _admit(self, waiting: deque[Job]) -> None:
        """Let prompts in, in their order.

        They wait until there are slots for them soon, and cells that nobody else will want.
        """
        unstarted = sum(len(group.tasks) for group in self._groups)
        while waiting and unstarted < self._sequences - len(self._slots) + PROMPTS_AHEAD:
            prompt, tasks = waiting[0]
            # Cells are kept for the longest task that may start next. Otherwise prompts could take
            # them all, and no task could start and make room.
            reserve = max(task.max_new_tokens for task in tasks)
            for group in self._groups:
                for task in group.tasks:
                    reserve = max(reserve, task.max_new_tokens)
            cells = self._limit - self._promised_cells - reserve
            leaf = self._tree.insert(prompt, cells, share=self.sharing)
            if leaf is None:
                return
            waiting.popleft()
            self._groups.append(PromptGroup(prompt, deque(tasks), leaf))
            unstarted += len(tasks)

    @property
    def _promised_cells(self) -> int:
        """Return how many cells are in use when every slot has grown to its full length."""
        return self._tree.cells + sum(slot.task.max_new_tokens for slot in self._slots)

    def _run_once(self) -> None:
        """Run the model once: on the tokens of slots, and on as much of the prompts as fits beside.

        Outputs come in the order of the call's wanted rows: those of slots first.
        """
        # first: a compaction restores only a sequence's own cells, and forks the rest again
        self._make_room()
        call = Call(self._cache)
        prompts = {group.leaf: group for group in self._groups if not group.leaf.ready}
        for slot in list(self._slots):
            if not call.fits(wanted=True, spare=PREFILL_ROWS if prompts else 0):
                break
            self._slots.rotate(-1)  # the next call begins with the slots that are left out here
            _add_slot(call, slot)
        for leaf in prompts:
            self._add_prompt(call, leaf, prompts)
        outputs = iter(self._cache.decode(call.rows))
        for slot, count in call.slots:
            self._advance(slot, count, outputs)
        for node, count in call.nodes:
            node.read += count
            if node.ready and node in prompts:
                prompts[node].output = _copy(next(outputs))

    def _add_prompt(self, call: Call, leaf: Node, leaves: Container[Node]) -> None:
        """Add tokens of the first unread node on the path to a leaf.

        `leaves` are all that are being read: only after their last tokens are logits wanted.
        """
        node = next(node for node in leaf.path() if not node.ready)
        if any(node is other for other, _ in call.nodes):
            return  # another prompt of this call shares it
        if not node.read:
            self._tree.share_cells(node)
        count = 0
        for i in range(node.read, len(node.tokens)):
            wanted = i + 1 == len(node.tokens) and node in leaves
            if not call.fits(wanted=wanted):
                break
            call.add_row(Token(node.tokens[i], node.start + i, node.sequence, wanted))
            count += 1
        if count:
            call.nodes.append((node, count))

    def _advance(self, slot: Slot, count: int, outputs: Iterator[Output]) -> None:
        """Note that a slot's next tokens are read, and give it their outputs."""
        task = slot.task
        slot.read += count
        read, task.unread = task.unread[:count], task.unread[count:]
        # All of them are taken, also if the task ends before the last one.
        own_outputs = [next(outputs) for _, wanted in read if wanted]
        for output in own_outputs:
            # A sibling that has just failed has ended all slots of its request.
            if slot in slot.group.slots and not self._feed(slot.group, task, output):
                self._end(slot)

    def _feed(self, group: PromptGroup, task: Task, output: Output) -> bool:
        """Give a task an output; return whether it goes on."""
        try:
            task.receive(output)
        except RequestError as error:
            self._results.append((task.index, error))
            # The request has its one result: its other tasks go too.
            group.tasks = deque(other for other in group.tasks if other.index != task.index)
            for slot in list(group.slots):
                if slot.task.index == task.index and slot.task is not task:
                    self._end(slot)
            return False
        if task.result is not None:
            self._results.append((task.index, task.result))
        return task.result is None

    def _settle(self, group: PromptGroup, *, last: bool) -> None:
        """Start as many tasks of a read prompt as fit; let go of it when all are done.

        `last`: no other prompts wait.
        """
        while group.output and group.tasks and len(self._slots) < self._sequences:
            if self._promised_cells + group.tasks[0].max_new_tokens > self._limit:
                break
            task = group.tasks.popleft()
            # some tasks are done with the output after the prompt, and need no slot
            if self._feed(group, task, group.output):
                self._start(group, task)
        if not group.tasks:
            group.output = None  # a row of logits may be large
        if not group.tasks and not group.slots:
            self._groups.remove(group)
            self._tree.release(group.leaf)
            # Prompts come in lexical order: one that shares no prefix with its neighbours is of no
            # use to the rest of this run, and slows it. At the end of the run it may be of use to
            # the next.
            self._tree.trim(fresh=MAX_IDLE_CELLS if last else 0, limit=self._limit // 2)

    def _start(self, group: PromptGroup, task: Task) -> None:
        slot = Slot(group, task, self._cache.reserve())
        self._cache.fork(group.leaf.sequence, slot.sequence, slot.start)
        group.slots.append(slot)
        self._slots.append(slot)

    def _end(self, slot: Slot) -> None:
        slot.group.slots.remove(slot)
        self._slots.remove(slot)
        self._cache.drop(slot.sequence, slot.start)

    def _abandon(self) -> None:
        """Leave the cache as if the unfinished jobs had never been asked."""
        for slot in list(self._slots):
            self._end(slot)
        for group in self._groups:
            self._tree.release(group.leaf)
        self._groups.clear()
        self._results.clear()

    def _make_room(self) -> None:
        """Compact the cache if the next call would not fit, or if dead cells have cost more."""
        live = sum(node.read for node in self._tree.nodes())
        live += sum(slot.read for slot in self._slots)
        self._wasted_cells += self._cache.top - live
        if (
            self._cache.top + MAX_ROWS > self._cache.cells
            or self._wasted_cells > COMPACTION_COST * live + MAX_ROWS
        ):
            self._compact()
            self._wasted_cells = 0

    def _compact(self) -> None:
        """Put all live cells in order again, without the dead ones between them.

        Of each sequence only its own cells are saved: those that it shares come with their owner.
        """
        cache = self._cache
        nodes = [node for node in self._tree.nodes() if node.read]
        slots = [slot for slot in self._slots if slot.read]
        saved_nodes = [cache.save(node.sequence, node.start) for node in nodes]
        saved_slots = [cache.save(slot.sequence, slot.start) for slot in slots]
        cache.clear()
        # Parents come before their children, so a node's prefix is there when it is forked.
        for node, saved in zip(nodes, saved_nodes, strict=True):
            cache.restore(node.sequence, saved, node.read)
            self._tree.share_cells(node)
        for slot, saved in zip(slots, saved_slots, strict=True):
            cache.restore(slot.sequence, saved, slot.read)
        for slot in self._slots:
            cache.fork(slot.group.leaf.sequence, slot.sequence, slot.start)


def _merged(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs in lexical order of their prompts, those of the same prompt as one.

    So a prompt is read once, and stands beside those which it shares most with.
    """
    merged: dict[tuple[int, ...], Job] = {}
    for prompt, tasks in sorted(jobs, key=lambda job: job[0]):
        merged.setdefault(tuple(prompt), (prompt, []))[1].extend(tasks)
    return list(merged.values())


def _one_task_each(jobs: Iterable[Job]) -> Iterator[Job]:
    """Yield the jobs in the order of the requests, with nothing shared between tasks."""
    for prompt, tasks in jobs:
        for task in tasks:
            yield prompt, [task]


def _add_slot(call: Call, slot: Slot) -> None:
    """Add as many of a slot's unread tokens to a call as fit."""
    count = 0
    for token, wanted in slot.task.unread:
        if not call.fits(wanted=wanted):
            break
        call.add_row(Token(token, slot.start + slot.read + count, slot.sequence, wanted))
        count += 1
    call.slots.append((slot, count))


def _copy(output: Output) -> Output:
    """Return an output that is still valid after the next call."""
    hidden = None if output.hidden is None else output.hidden.copy()
    return output._replace(logits=output.logits.copy(), hidden=hidden)
