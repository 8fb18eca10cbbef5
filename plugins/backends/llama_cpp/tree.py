"""A radix tree of the prompts' tokens over the cache: a prefix that prompts share is read once.

A node is a stretch of tokens that follows its parent's. It has a llama.cpp sequence which holds the
whole path from the root, and shares the cells of all but its own stretch with its ancestors'
sequences. Nodes stay when their prompts have been answered, for prompts of later calls. Nodes that
nobody uses are evicted for room: first those that no second prompt ever shared, then those that
were used longest ago. (The idea of SGLang's RadixAttention, Zheng et al. 2024, arXiv:2312.07104.)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from selfloop_plugins._decoding.tasks import common_prefix

from .cache import Cache

MIN_SPLIT_TOKENS = 8  # fewer tokens in common are not worth a node
MAX_NODES_OF_PROMPT = 16  # nodes that one prompt may be cut into


@dataclass(eq=False, slots=True)
class Node:
    """A stretch of tokens; `read` of them are in the cache.

    `start`: the position of its first token. `users`: prompts at work that end here. `shared`:
    whether a second prompt went through it. `used`: when it was used last, by the tree's clock.
    """

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
        """Return the length of the whole path from the root."""
        return self.start + len(self.tokens)

    @property
    def ready(self) -> bool:
        """Return whether all of it is in the cache, and so all tokens before it."""
        return self.read == len(self.tokens)

    @property
    def idle(self) -> bool:
        """Return whether nobody needs it."""
        return not self.users and not self.children and self.parent is not None

    def path(self) -> "list[Node]":
        """Return the nodes from below the root down to this one."""
        return [] if self.parent is None else [*self.parent.path(), self]


class PrefixTree:
    """The prompts in a cache. `window` is the model's sliding window, 0 for none."""

    def __init__(self, cache: Cache, *, window: int, sequences: int) -> None:
        """Take a cache of whose sequences `sequences` are needed elsewhere."""
        self._cache, self._window = cache, window
        self._max_nodes = cache.sequences - sequences
        self._root = Node(None, [], 0, -1)  # no tokens, and no sequence
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

    def insert(self, prompt: list[int], cells: int, *, share: bool = True) -> Node | None:
        """Return a new node at the end of a prompt, in use until `release`.

        Its last token is yet to be read: somebody wants the output after it. The prompt may take
        `cells` new cells, and more by evicting nodes. None if there is no room now.
        """
        while True:
            parent, matched = self._match(prompt) if share else (self._root, 0)
            position = parent.start + matched  # of the first token that is new
            new_tokens = len(prompt) - position
            size = self._node_size(new_tokens)
            nodes = math.ceil(new_tokens / size) + (matched < len(parent.tokens))
            if new_tokens <= cells and self._count + nodes <= self._max_nodes:
                break
            freed = self._evict(rather_not=parent)
            if freed is None:
                return None
            cells += freed
        if matched < len(parent.tokens):
            parent = self._split(parent, matched)
        for node in parent.path():
            node.shared, node.used = True, self._tick()
        for child in list(parent.children):
            if child.idle and child.tokens == prompt[position:]:
                self._remove(child)  # the same prompt again: its last token is read once more
        while position < len(prompt):
            parent = self._append(parent, prompt[position : position + size])
            position = parent.end
        parent.users += 1
        return parent

    def release(self, node: Node) -> None:
        """Give up the use of a node. It goes if it was not read, and so do its unread ancestors."""
        node.users -= 1
        node.used = self._tick()
        while node.parent is not None and node.idle and not node.ready:
            parent = node.parent
            self._remove(node)
            node = parent

    def trim(self, *, fresh: int, limit: int) -> None:
        """Evict until idle nodes take at most `limit` cells, unshared ones at most `fresh`."""
        while self._idle_cells(fresh=True) > fresh or self._idle_cells(fresh=False) > limit:
            self._evict()

    def share_cells(self, node: Node) -> None:
        """Let a node's sequence share the cells of its ancestors."""
        if node.parent is not None:
            self._cache.fork(node.parent.sequence, node.sequence, node.start)

    def _match(self, prompt: list[int]) -> tuple[Node, int]:
        """Return the node that a prompt leads to, and how many of its tokens the prompt has.

        The prompt's last token never counts: it has to be read.
        """
        node = self._root
        while True:
            rest = prompt[node.end : -1]
            child, shared = node, 0
            for candidate in node.children:
                length = common_prefix(candidate.tokens, rest)
                if length > shared:
                    child, shared = candidate, length
            if shared and shared == len(child.tokens):
                node = child
            elif shared >= MIN_SPLIT_TOKENS and self._may_split(child):
                return child, shared
            else:
                return node, len(node.tokens)

    def _may_split(self, node: Node) -> bool:
        """Return whether a node can be cut in two: one longer than the window cannot.

        A saved sequence has lost the cells that are hidden from its end, but its middle might need
        them.
        """
        return not self._window or len(node.tokens) <= self._window

    def _node_size(self, length: int) -> int:
        """Return how many tokens a node may have where `length` are new: with a window few enough
        that it can be split.
        """
        if not self._window:
            return length
        return max(self._window, math.ceil(length / MAX_NODES_OF_PROMPT))

    def _split(self, node: Node, length: int) -> Node:
        """Put a new node for the first `length` tokens above a node; return it."""
        assert node.parent is not None
        upper = Node(
            node.parent,
            node.tokens[:length],
            node.start,
            self._cache.reserve(),
            min(length, node.read),
            [node],
        )
        upper.used = node.used
        # both hold the cells of the upper part now; the lower node's own ones are those after it
        self._cache.fork(node.sequence, upper.sequence, upper.start + upper.read)
        node.parent.children[node.parent.children.index(node)] = upper
        node.parent, node.tokens, node.start = upper, node.tokens[length:], upper.end
        node.read = max(0, node.read - length)
        self._count += 1
        return upper

    def _append(self, parent: Node, tokens: list[int]) -> Node:
        """Return a new node below a parent."""
        node = Node(parent, tokens, parent.end, self._cache.reserve(), used=self._tick())
        parent.children.append(node)
        self._count += 1
        return node

    def _evict(self, rather_not: Node | None = None) -> int | None:
        """Remove the idle node that is missed least.

        Return how many cells it had, None if no node is idle. `rather_not` goes only if it is the
        last one: the prompt at hand shares it.
        """
        idle = [node for node in self.nodes() if node.idle]
        if not idle:
            return None
        node = min(idle, key=lambda node: (node is rather_not, node.shared, node.used))
        self._remove(node)
        return len(node.tokens)

    def _remove(self, node: Node) -> None:
        assert node.parent is not None
        node.parent.children.remove(node)
        self._cache.drop(node.sequence, node.start)
        self._count -= 1

    def _idle_cells(self, *, fresh: bool) -> int:
        """Return the cells of idle nodes; with `fresh` only of those that were never shared."""
        idle = (node for node in self.nodes() if node.idle)
        return sum(len(node.tokens) for node in idle if not (fresh and node.shared))

    def _tick(self) -> int:
        """Return the time, which is the number of times that it was asked for."""
        self._clock += 1
        return self._clock
