"""What prompts have in common is read once: a radix tree of the prompts' tokens over the cache.

A node is a stretch of tokens that follows its parent's. It has a llama.cpp sequence which holds the
whole way from the root, and shares the cells of all but its own stretch with its ancestors'
sequences. Nodes stay when their prompts have been answered, for prompts of later calls; those that
nobody uses are evicted for room, first what no second prompt ever shared, then what was used
longest ago. (The idea of SGLang's RadixAttention, Zheng et al. 2024, arXiv:2312.07104.)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from selfloop_plugins._decoding.tasks import common

from .cache import Cache

SPLIT = 8  # fewer tokens in common are not worth a node
EDGES = 16  # nodes that one prompt may be cut into


@dataclass(eq=False, slots=True)
class Node:
    """A stretch of tokens; `read` of them are in the cache."""

    parent: "Node | None"
    tokens: list[int]
    start: int
    sequence: int
    read: int = 0
    children: "list[Node]" = field(default_factory=list)
    users: int = 0
    shared: bool = False
    used: int = 0

    @property
    def end(self) -> int:
        """Return the length of the whole way from the root."""
        return self.start + len(self.tokens)

    @property
    def ready(self) -> bool:
        """Return whether all of it is in the cache, and so all before it."""
        return self.read == len(self.tokens)

    @property
    def idle(self) -> bool:
        """Return whether nobody needs it."""
        return not self.users and not self.children and self.parent is not None

    def way(self) -> "list[Node]":
        """Return the nodes from below the root down to this one."""
        return [] if self.parent is None else [*self.parent.way(), self]


class Tree:
    """The prompts in a cache. `window` is the model's sliding window, 0 for none."""

    def __init__(self, cache: Cache, *, window: int, sequences: int) -> None:
        """Take a cache of whose sequences `sequences` are needed elsewhere."""
        self._cache, self._window, self._most = cache, window, cache.sequences - sequences
        self._root = Node(None, [], 0, -1)
        self._count = self._clock = 0

    def nodes(self) -> Iterator[Node]:
        """Yield all nodes below the root, parents first."""
        queue = list(self._root.children)
        while queue:
            node = queue.pop()
            yield node
            queue += node.children

    @property
    def cells(self) -> int:
        """Return the cells that all nodes take when they are read."""
        return sum(len(node.tokens) for node in self.nodes())

    def plant(self, prompt: list[int], cells: int, *, share: bool = True) -> Node | None:
        """Return a new node at the end of a prompt, in use until `leave`; its last token is yet to
        be read.

        It may take `cells` new cells, some of them by evicting others. None where there is no room
        now.
        """
        while True:
            parent, matched = self._match(prompt) if share else (self._root, 0)
            at = parent.start + matched
            size = self._edge(len(prompt) - at)
            nodes = math.ceil((len(prompt) - at) / size) + (matched < len(parent.tokens))
            if len(prompt) - at <= cells and self._count + nodes <= self._most:
                break
            freed = self._evict(rather_not=parent)
            if freed is None:
                return None
            cells += freed
        if matched < len(parent.tokens):
            parent = self._split(parent, matched)
        for node in parent.way():
            node.shared, node.used = True, self._tick()
        for twin in [
            child for child in parent.children if child.idle and child.tokens == prompt[at:]
        ]:
            self._remove(twin)  # the same prompt again: its last token has to be read once more
        while at < len(prompt):
            parent = self._grow(parent, prompt[at : at + size])
            at = parent.end
        parent.users += 1
        return parent

    def leave(self, node: Node) -> None:
        """Give up the use of a node; what was not read goes with it."""
        node.users -= 1
        node.used = self._tick()
        while node.parent is not None and node.idle and not node.ready:
            parent = node.parent
            self._remove(node)
            node = parent

    def trim(self, *, fresh: int, limit: int) -> None:
        """Evict until idle nodes take at most `limit` cells, and those that were never shared at most `fresh`."""
        while self._idle_cells(fresh=True) > fresh or self._idle_cells(fresh=False) > limit:
            self._evict()

    def begin(self, node: Node) -> None:
        """Let a node's sequence hold what comes before its own tokens."""
        if node.parent is not None:
            self._cache.fork(node.parent.sequence, node.sequence, node.start)

    def _match(self, prompt: list[int]) -> tuple[Node, int]:
        """Return the node that a prompt leads to, and how much of its tokens; at least one token is left over."""
        node = self._root
        while True:
            rest = prompt[node.end : -1]
            shares = [(common(child.tokens, rest), child) for child in node.children]
            share, child = max(shares, key=lambda found: found[0], default=(0, node))
            if share and share == len(child.tokens):
                node = child
            elif share >= SPLIT and (not self._window or len(child.tokens) <= self._window):
                return child, share
            else:
                return node, len(node.tokens)

    def _edge(self, length: int) -> int:
        """Return how many tokens a node may have; one longer than the window is never split.

        A saved sequence has lost what is hidden from its end, but its middle might need it.
        """
        return max(self._window, math.ceil(length / EDGES)) if self._window else length

    def _split(self, node: Node, length: int) -> Node:
        """Put a new node for the first `length` tokens above a node; return it."""
        assert node.parent is not None
        upper = Node(
            node.parent,
            node.tokens[:length],
            node.start,
            self._cache.take(),
            min(length, node.read),
            [node],
        )
        upper.used = node.used
        self._cache.fork(node.sequence, upper.sequence, upper.start + upper.read)
        node.parent.children[node.parent.children.index(node)] = upper
        node.parent, node.tokens, node.start = upper, node.tokens[length:], upper.end
        node.read = max(0, node.read - length)
        self._count += 1
        return upper

    def _grow(self, parent: Node, tokens: list[int]) -> Node:
        node = Node(parent, tokens, parent.end, self._cache.take(), used=self._tick())
        parent.children.append(node)
        self._count += 1
        return node

    def _evict(self, rather_not: Node | None = None) -> int | None:
        """Remove the idle node that is missed least; return its cells, None if there is none."""
        idle = [node for node in self.nodes() if node.idle]
        if not idle:
            return None
        node = min(idle, key=lambda found: (found is rather_not, found.shared, found.used))
        self._remove(node)
        return len(node.tokens)

    def _remove(self, node: Node) -> None:
        assert node.parent is not None
        node.parent.children.remove(node)
        self._cache.drop(node.sequence, node.start)
        self._count -= 1

    def _idle_cells(self, *, fresh: bool) -> int:
        return sum(
            len(node.tokens) for node in self.nodes() if node.idle and not (fresh and node.shared)
        )

    def _tick(self) -> int:
        self._clock += 1
        return self._clock
