"""The radix tree of the prompts, over a cache that only notes which sequence holds which cells."""

import random
from itertools import count

import pytest

pytest.importorskip("llama_cpp", reason="pip install 'selfloop[llamacpp]'")

from selfloop_plugins.backends.llama_cpp.tree import (
    MAX_NODES_OF_PROMPT,
    MIN_SPLIT_TOKENS,
    PrefixTree,
    common_prefix,
)

ROOM = 10**6


class Cells:
    """What each sequence holds: position -> (cell, token). Cells are shared, as in llama.cpp."""

    def __init__(self, sequences):
        self.sequences, self.free, self.made = sequences, list(range(sequences)), count()
        self.held, self.log = {}, []

    def reserve(self):
        sequence = self.free.pop()
        self.held[sequence] = {}
        self.log.append(("take", sequence))
        return sequence

    def fork(self, source, target, length):
        self.log.append(("fork", source, target, length))
        if length:
            self.held[target] |= {at: cell for at, cell in self.held[source].items() if at < length}

    def drop(self, sequence, start):
        self.log.append(("drop", sequence, start))
        del self.held[sequence]
        self.free.append(sequence)

    def write(self, sequence, at, token):
        assert at not in self.held[sequence] and set(self.held[sequence]) == set(range(at)), (
            "a hole, or read twice"
        )
        self.held[sequence][at] = next(self.made), token


def made(*, window=0, sequences=40, elsewhere=0):
    """Return a tree and its cache."""
    cells = Cells(sequences)
    return PrefixTree(cells, window=window, sequences=elsewhere), cells


def read(tree, leaf, most=ROOM):
    """Read the unread nodes on the path to a leaf, as the scheduler does; return the tokens."""
    done = 0
    for node in leaf.path():
        if not node.ready and not node.read and done < most:
            tree.share_cells(node)
        while not node.ready and done < most:
            tree._cache.write(node.sequence, node.start + node.read, node.tokens[node.read])
            node.read += 1
            done += 1
    return done


def add(tree, prompt, cells=ROOM, *, stay=True):
    """Plant a prompt and read it; without `stay` nobody uses it afterwards."""
    leaf = tree.insert(list(prompt), cells)
    assert leaf is not None
    taken = read(tree, leaf)
    if not stay:
        tree.release(leaf)
    return leaf, taken


def said(leaf):
    """Return the tokens from the root down to a leaf."""
    return [token for node in leaf.path() for token in node.tokens]


def shape(tree):
    """Return (start, tokens) of all nodes, in order."""
    return sorted((node.start, "".join(map(str, node.tokens))) for node in tree.nodes())


def check(tree, cells):
    """The tree is connected, and every sequence holds its own path from the root, once."""
    nodes = list(tree.nodes())
    for node in nodes:
        assert node.tokens and node.start == node.parent.end and 0 <= node.read <= len(node.tokens)
        assert sum(child is node for child in node.parent.children) == 1
        if node.read:
            assert node.parent.ready
            held, tokens = cells.held[node.sequence], said(node)[: node.start + node.read]
            assert [held[at][1] for at in range(len(held))] == tokens
            above = cells.held.get(node.parent.sequence, {})
            assert all(held[at] == above[at] for at in range(node.start))
    assert len({node.sequence for node in nodes}) == len(nodes) == tree._count
    assert sorted(cells.held) == sorted(node.sequence for node in nodes)
    assert sorted([*cells.free, *cells.held]) == list(range(cells.sequences))
    assert len(nodes) <= tree._max_nodes
    assert tree.cells == sum(len(node.tokens) for node in nodes)
    ready = {node.sequence: node for node in nodes if node.read}
    alive = {
        cell
        for sequence, node in ready.items()
        for cell, _ in list(cells.held[sequence].values())[node.start :]
    }
    assert len(alive) == sum(node.read for node in nodes)


def test_what_two_texts_have_in_common():
    assert common_prefix([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_prefix([], [1]) == common_prefix([2], [1]) == 0
    assert common_prefix([1, 2], [1, 2, 3]) == common_prefix([1, 2, 3], [1, 2]) == 2


def test_a_prompt_alone_is_one_node():
    tree, cells = made()
    leaf, taken = add(tree, [1] * 50)
    assert (said(leaf), taken, tree.cells, leaf.users, leaf.shared) == ([1] * 50, 50, 50, 1, False)
    assert cells.log == [("take", leaf.sequence), ("fork", -1, leaf.sequence, 0)]
    check(tree, cells)


def test_a_short_prompt_is_planted_too():
    tree, cells = made()
    first, second = add(tree, [5])[0], add(tree, [5])[0]
    assert said(first) == said(second) == [5] and first is not second
    check(tree, cells)


def test_what_is_there_is_not_read_again():
    tree, cells = made()
    add(tree, [*range(20), 91, 92])
    leaf, taken = add(tree, [*range(20), 81, 82, 83])
    assert taken == 3 and said(leaf) == [*range(20), 81, 82, 83]
    assert tree.cells == 25 and leaf.parent.tokens == list(range(20))
    assert leaf.parent.shared and not leaf.shared
    check(tree, cells)


def test_the_last_token_is_always_read_for_its_logits():
    tree, cells = made()
    add(tree, range(20))
    for _ in range(3):
        assert add(tree, range(20))[1] == 1
        check(tree, cells)
    # all in use
    assert [node.tokens for node in tree.nodes()] == [list(range(19)), [19], [19], [19], [19]]
    assert add(tree, range(12))[1] == 1  # what is a beginning of another
    leaf, taken = add(tree, range(30))  # and what goes on from one
    assert taken == 10 + (leaf.parent.end == 19)
    check(tree, cells)


def test_the_same_prompt_again_and_again_does_not_pile_up():
    tree, cells = made()
    for _ in range(5):
        add(tree, range(20), stay=False)
        assert tree.cells == 20
        check(tree, cells)


@pytest.mark.parametrize("same", range(MIN_SPLIT_TOKENS - 2, MIN_SPLIT_TOKENS + 3))
def test_little_in_common_is_not_worth_a_node(same):
    tree, cells = made()
    add(tree, [*range(same), *[91] * 20])
    taken = add(tree, [*range(same), *[92] * 20])[1]
    assert taken == (20 if same >= MIN_SPLIT_TOKENS else same + 20)
    check(tree, cells)


def test_without_sharing_each_prompt_stands_alone():
    tree, cells = made()
    first, second = (tree.insert(list(range(30)), ROOM, share=False) for _ in range(2))
    assert read(tree, first) == read(tree, second) == 30
    assert tree.cells == 60 and first.parent is second.parent
    check(tree, cells)


def test_the_longest_of_several_beginnings_is_taken():
    tree, cells = made()
    for end in (10, 20, 30):
        add(tree, [*range(end), *[90 + end] * 9], stay=False)
    assert add(tree, [*range(28), 7])[1] == 1
    assert add(tree, [*range(18), 7])[1] == 1
    assert add(tree, [*range(23), 7])[1] == 4  # from 20 on
    check(tree, cells)


@pytest.mark.parametrize("done", [0, 3, 12, 15, 20])
def test_a_node_is_split_at_any_point_of_its_reading(done):
    tree, cells = made()
    first = tree.insert([*range(12), *[91] * 8], ROOM)
    read(tree, first, done)
    second = tree.insert([*range(12), *[92] * 8], ROOM)
    check(tree, cells)
    assert (
        first.parent is second.parent
        and first.parent.read == min(done, 12)
        and first.read == max(0, done - 12)
    )
    both = read(tree, second), read(tree, first)
    assert sum(both) == 28 - done
    check(tree, cells)


def test_a_window_limits_how_long_a_node_may_be():
    tree, cells = made(window=12)
    leaf = add(tree, range(100))[0]
    assert [len(node.tokens) for node in leaf.path()] == [12] * 8 + [4]
    # 36 whole, and a split after 10 of the next 12
    assert add(tree, [*range(46), *[91] * 5])[1] == 5
    assert add(tree, [*range(39), *[92] * 5])[1] == 8  # 3 are not worth one
    check(tree, cells)


def test_a_node_longer_than_the_window_is_never_split():
    tree, cells = made(window=12, sequences=60)
    leaf = add(tree, range(400))[0]
    assert [len(node.tokens) for node in leaf.path()] == [25] * MAX_NODES_OF_PROMPT
    assert add(tree, [*range(45), *[91] * 5])[1] == 25  # from the last whole node on
    assert add(tree, [*range(50), *[92] * 5])[1] == 5
    check(tree, cells)


def test_what_was_never_shared_goes_first_then_what_was_used_longest_ago():
    tree, cells = made()
    for kind in (1, 2):  # two shared beginnings, each with two ends
        for end in (7, 8):
            add(tree, [kind] * 10 + [end] * 5, stay=False)
    for alone in (3, 4):
        add(tree, [alone] * 10, stay=False)
    add(tree, [1] * 10 + [9] * 5, stay=False)  # 1 is used last
    assert tree.cells == 65
    gone = []
    while tree.cells:
        before = [(node, said(node)) for node in tree.nodes()]
        tree._evict()
        check(tree, cells)
        left = set(tree.nodes())
        gone += [(way[0], way[-1]) for node, way in before if node not in left]
    fresh = [(1, 7), (1, 8), (2, 7), (2, 8), (3, 3), (4, 4), (1, 9)]
    assert gone == [*fresh, (2, 2), (1, 1)]
    assert tree._evict() is None


def test_no_room_evicts_what_is_idle_and_keeps_what_it_goes_on_from():
    tree, cells = made()
    add(tree, [1] * 30, stay=False)
    add(tree, [2] * 30, stay=False)
    add(tree, [3] * 30, stay=False)
    assert add(tree, [1] * 30 + [9] * 10, 100 - tree.cells)[1] == 10
    assert tree.cells == 100
    assert add(tree, [1] * 30 + [8] * 10, 100 - tree.cells)[1] == 10
    assert shape(tree)[0] == (0, "1" * 30) and tree.cells == 80  # the 2 has gone, the oldest
    check(tree, cells)


def test_even_what_it_could_go_on_from_goes_if_it_must():
    tree, cells = made()
    add(tree, [1] * 30 + [2] * 30, stay=False)
    leaf, taken = add(tree, [1] * 30 + [3] * 60, 100 - tree.cells)
    assert (taken, tree.cells) in ((90, 90), (60, 90)) and said(leaf) == [1] * 30 + [3] * 60
    check(tree, cells)


def test_where_nothing_can_be_evicted_it_waits():
    tree, cells = made()
    first = add(tree, [1] * 60)[0]
    before = shape(tree)
    assert tree.insert([2] * 60, 40) is None
    assert tree.insert([1] * 30 + [2] * 41, 40) is None
    assert shape(tree) == before
    tree.release(first)
    assert tree.insert([2] * 60, 40) is not None
    check(tree, cells)


def test_where_there_are_no_sequences_it_waits():
    tree, cells = made(sequences=5, elsewhere=2)
    leaves = [add(tree, [kind] * 10)[0] for kind in (1, 2, 3)]
    assert tree.insert([4] * 10, ROOM) is None
    assert tree.insert([3] * 9 + [4], ROOM) is None  # a split and an end would be two more
    tree.release(leaves[0])
    assert tree.insert([4] * 10, ROOM) is not None
    assert len(cells.free) == 2
    check(tree, cells)


def test_what_was_not_read_goes_when_its_user_leaves():
    tree, cells = made()
    add(tree, range(20))
    leaf = tree.insert([*range(20), *[91] * 20], ROOM)
    read(tree, leaf, 10)
    tree.release(leaf)
    assert shape(tree) == [(0, "".join(map(str, range(20))))]
    check(tree, cells)
    first, second = (tree.insert([5] * 20 + [kind] * 9, ROOM) for kind in (1, 2))
    tree.release(first)
    assert said(second) == [5] * 20 + [2] * 9 and tree.cells == 20 + 29
    tree.release(second)
    assert tree.cells == 20
    check(tree, cells)


def test_a_node_that_is_used_twice_stays_for_the_second():
    tree, cells = made()
    first = add(tree, [1] * 20)[0]
    second = add(tree, [1] * 20 + [2] * 9)[0]
    tree.release(first)
    tree.trim(fresh=0, limit=0)
    assert said(second) == [1] * 20 + [2] * 9 and tree.cells == 29
    tree.release(second)
    tree.trim(fresh=0, limit=0)
    assert tree.cells == 0 and not cells.held
    check(tree, cells)


def test_trim_has_a_limit_for_the_fresh_and_one_for_all():
    tree, cells = made()
    for kind in (1, 2):
        add(tree, [kind] * 10 + [8] * 5, stay=False)
        add(tree, [kind] * 10 + [9] * 5, stay=False)
    add(tree, [3] * 40, stay=False)
    tree.trim(fresh=40, limit=ROOM)
    assert tree.cells == 60  # the four ends are older than what stands alone
    tree.trim(fresh=0, limit=ROOM)
    assert shape(tree) == [(0, "1" * 10), (0, "2" * 10)]
    tree.trim(fresh=0, limit=10)
    assert shape(tree) == [(0, "2" * 10)]
    tree.trim(fresh=0, limit=0)
    assert not shape(tree)
    check(tree, cells)


def test_trimming_all_gives_all_sequences_back():
    tree, cells = made(window=12)
    for kind in range(5):
        add(tree, [kind] * 30, stay=False)
    tree.trim(fresh=0, limit=0)
    assert not list(tree.nodes()) and len(cells.free) == cells.sequences
    check(tree, cells)
    add(tree, [1] * 30)
    check(tree, cells)


@pytest.mark.slow
@pytest.mark.parametrize("window", [0, 12, 40])
@pytest.mark.parametrize("seed", range(3))
def test_soak(window, seed):
    """Thousands of prompts come and go in a cache that is always too small."""
    luck = random.Random(seed)
    limit, sequences = luck.choice([150, 300, 800]), luck.choice([MAX_NODES_OF_PROMPT + 1, 30])
    tree, cells = made(window=window, sequences=sequences + 8, elsewhere=8)
    blocks = [[luck.randrange(5) for _ in range(luck.randrange(3, 20))] for _ in range(6)]
    used, waited, planted = [], 0, 0
    for _ in range(2500):
        what = luck.random()
        if what < 0.4:
            prompt = [token for _ in range(luck.randrange(1, 7)) for token in luck.choice(blocks)]
            leaf = tree.insert(prompt, limit - tree.cells, share=luck.random() < 0.95)
            if leaf is None:
                assert used, "nobody uses anything, and yet there is no room"
                waited += 1
            else:
                assert said(leaf) == prompt and not leaf.ready and leaf.users == 1
                used.append(leaf)
                planted += 1
        elif what < 0.75 and used:
            read(tree, luck.choice(used), luck.choice([1, 10, 40, ROOM]))
        elif what < 0.97 and used:
            tree.release(used.pop(luck.randrange(len(used))))
        elif what < 0.99:
            tree.trim(fresh=luck.choice([0, 50]), limit=luck.choice([0, 100, limit // 2]))
        elif not used:
            tree.trim(fresh=0, limit=0)
        check(tree, cells)
        assert tree.cells <= limit
    while used:
        tree.release(used.pop())
    check(tree, cells)
    assert all(node.ready for node in tree.nodes())
    tree.trim(fresh=0, limit=0)
    assert not cells.held and planted > 300 and waited > 30
