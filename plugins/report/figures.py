"""The pictures of a report: from the facts of a run to a figure each, or None where there is nothing to draw."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfloop_plugins._shared.output import has_mark
from selfloop_plugins.commands.beliefs import Change

from selfloop.history import Past

from .canvas import COLOURS, canvas, save, styled
from .facts import Facts
from .topics import Topic, topics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

KINDS = ("belief", "undecided", "declined")
STEPS = ("ask", "answer", "critique", "revise", "verify", "decide", "tune")
SHADES = ("accent", "belief", "undecided", "failed", "declined", "dropped", "soft")
CHANGES: Mapping[Change, tuple[str, str]] = {
    "found": ("now believed", "belief"),
    "changed": ("another answer", "undecided"),
    "lost": ("no longer believed", "failed"),
}
MANY = 40  # topics that the map shows
ROUNDS = 20  # that are labelled one by one


@dataclass(frozen=True)
class Picture:
    """A picture by name: its title, what it says, and how it is drawn."""

    name: str
    title: str
    caption: str
    draw: "Callable[[Facts], Figure | None]"


def rounds(facts: Facts) -> "Figure | None":
    """Draw what each round came to."""
    if not facts.rounds:
        return None
    kinds = (*KINDS, "failed", "dropped")
    rows = [(kind, kind, [one.count(kind) for one in facts.rounds]) for kind in kinds]  # type: ignore[arg-type]
    return _stacked(
        [one.number for one in facts.rounds], [row for row in rows if any(row[2])], "questions"
    )


def _stacked(
    numbers: Sequence[int], rows: Sequence[tuple[str, str, Sequence[float]]], what: str
) -> "Figure":
    """Draw a bar for each round, made of rows: a label, a colour's role, and a length in each round."""
    figure, axes = canvas(height=1.3 + 0.42 * min(len(numbers), ROUNDS))
    left = [0.0] * len(numbers)
    for label, role, lengths in rows:
        axes.barh(numbers, lengths, left=left, color=COLOURS[role], label=label, height=0.7)
        left = [a + b for a, b in zip(left, lengths, strict=True)]
    axes.set(xlabel=what, ylabel="round", ylim=(max(numbers) + 0.5, min(numbers) - 0.5))
    _whole(axes.yaxis, numbers)
    _legend(axes)
    return figure


def _whole(axis: "Axis", numbers: Sequence[int] = ()) -> None:
    """Label whole numbers alone: each of these, if there is room, or else as many as there is room for."""
    from matplotlib.ticker import MaxNLocator

    if 0 < len(numbers) <= ROUNDS:
        axis.set_ticks(numbers)
    else:
        axis.set_major_locator(
            MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        )


def growth(facts: Facts) -> "Figure | None":
    """Draw how what is known and what is declined grew over the rounds."""
    if len(facts.rounds) < 2:
        return None
    figure, axes = canvas()
    numbers = [one.number for one in facts.rounds]
    told = [_told(facts, number) for number in numbers]
    for kind in KINDS:
        axes.plot(numbers, [one[kind] for one in told], "o-", color=COLOURS[kind], label=kind)
    axes.set(xlabel="after round", ylabel="questions", ylim=(0, None))
    _whole(axes.xaxis, numbers)
    _whole(axes.yaxis)
    _legend(axes)
    return figure


def _told(facts: Facts, number: int) -> Counter[str]:
    """Return how many questions have which decision after a round, each as it was decided last."""
    past = Past.of(facts.rounds[:number])
    return Counter({one.question.text: one.decision for one in past.outcomes}.values())


def changes(facts: Facts) -> "Figure | None":
    """Draw how each round changed what was held before it."""
    found = Counter((flip.after.round, flip.what) for flip in facts.flips)
    if not found:
        return None
    figure, axes = canvas()
    numbers = [one.number for one in facts.rounds]
    above, below = [0] * len(numbers), [0] * len(numbers)
    for what, (label, role) in CHANGES.items():
        counts = [found[number, what] for number in numbers]
        if not any(counts):
            continue
        base, sign = (below, -1) if what == "lost" else (above, 1)
        heights = [sign * count for count in counts]
        axes.bar(numbers, heights, bottom=base, color=COLOURS[role], label=label, width=0.6)
        base[:] = [a + b for a, b in zip(base, heights, strict=True)]
    axes.axhline(0, color=COLOURS["soft"], linewidth=0.8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set(xlabel="round", ylabel="earlier questions")
    _whole(axes.xaxis, numbers)
    _whole(axes.yaxis)
    _legend(axes)
    return figure


def confidence(facts: Facts) -> "Figure | None":
    """Draw how sure the last answers are, by what became of them."""
    by = {
        kind: [
            a.confidence for _, a in facts.last if a.decision == kind and a.confidence is not None
        ]
        for kind in KINDS
    }
    if not any(by.values()):
        return None
    figure, axes = canvas()
    axes.hist(
        list(by.values()),
        bins=[k / 20 for k in range(21)],
        stacked=True,
        label=KINDS,
        color=[COLOURS[k] for k in KINDS],
    )
    for value in (facts.decide.declined, facts.decide.belief):
        axes.axvline(value, color=COLOURS["ink"], linewidth=1, linestyle=":")
    axes.set(xlabel="confidence", ylabel="questions", xlim=(0, 1))
    _legend(axes)
    return figure


def reliability(facts: Facts) -> "Figure | None":
    """Draw the share that is right at each confidence, where there are gold answers."""
    if facts.measured is None:
        return None
    figure, axes = canvas(4.4, 3.6)
    bins = facts.measured.confidence.reliability
    points = [p for p in zip(bins["confidence"], bins["right"], bins["count"], strict=True) if p[2]]
    axes.plot(
        [0, 1], [0, 1], color=COLOURS["soft"], linewidth=1, linestyle=":", label="as sure as right"
    )
    for mean, share, count in points:
        low, high = wilson(share, int(count))
        axes.plot([mean, mean], [low, high], color=COLOURS["line"], linewidth=3, zorder=1)
    axes.plot(
        [p[0] for p in points],
        [p[1] for p in points],
        "o-",
        color=COLOURS["accent"],
        label="this run",
    )
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    _legend(axes)
    return figure


def risk_coverage(facts: Facts) -> "Figure | None":
    """Draw the share wrong among the surest answers: by gold, and as the confidences themselves have it."""
    given = sorted((a.confidence for _, a in facts.last if a.confidence is not None), reverse=True)
    if not given and facts.measured is None:
        return None
    figure, axes = canvas(4.4, 3.6)
    if facts.measured is not None:
        curve = facts.measured.confidence.risk_coverage
        axes.plot(
            curve["coverage"], curve["risk"], color=COLOURS["failed"], label="by gold answers"
        )
    total, expected = 0.0, []
    for count, one in enumerate(given, 1):
        total += 1 - one
        expected.append(total / count)
    shares = [count / len(given) for count in range(1, len(given) + 1)]
    axes.plot(
        shares, expected, color=COLOURS["accent"], linestyle="--", label="by its own confidence"
    )
    axes.set(
        xlabel="share answered, surest first",
        ylabel="share wrong of these",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    _legend(axes)
    return figure


def map_of_topics(facts: Facts) -> "Figure | None":
    """Draw the topics as areas: as large as there are questions, the greener the more is believed."""
    found = topics(facts.last)[:MANY]
    if not found:
        return None
    import squarify  # type: ignore[import-untyped]

    figure, axes = canvas(9.6, 4.6)
    sizes = squarify.normalize_sizes([one.questions for one in found], 960, 460)
    for one, box in zip(found, squarify.padded_squarify(sizes, 0, 0, 960, 460), strict=True):
        _area(axes, one, box)
    axes.set(xlim=(0, 960), ylim=(460, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return figure


def _area(axes: "Axes", topic: Topic, box: Mapping[str, float]) -> None:
    """Draw one topic: three strips as wide as its shares of known, undecided and declined, and its name."""
    at, total = box["x"], max(topic.questions, 1)
    for kind in KINDS:
        width = box["dx"] * topic.counts[kind] / total
        axes.barh(
            box["y"],
            width,
            box["dy"],
            left=at,
            align="edge",
            color=COLOURS[kind],
            alpha=0.45,
            linewidth=0,
        )
        at += width
    letters = int(box["dx"] / 8)
    if letters >= 4 and box["dy"] > 18:
        name = topic.name if len(topic.name) <= letters else f"{topic.name[: letters - 1]}…"
        axes.text(box["x"] + 5, box["y"] + 5, name, fontsize=9, va="top", clip_on=True)
        if box["dy"] > 34:
            said = f"{topic.counts['belief']} of {topic.questions}"
            axes.text(
                box["x"] + 5,
                box["y"] + 20,
                said,
                fontsize=8,
                va="top",
                color=COLOURS["soft"],
                clip_on=True,
            )


def gates(facts: Facts) -> "Figure | None":
    """Draw what each tune changed on held-out questions, with intervals."""
    tuned = [one for one in facts.tunes if one.gate.get("base") and one.gate.get("tuned")]
    if not tuned:
        return None
    figure, axes = canvas(5.2, 3.4)
    labels, shown = list[str](), set[str]()
    for tune in tuned:
        for name, state in (("before", "base"), ("after", "tuned")):
            _bars(axes, len(labels), tune.gate[state], _held(tune.about), shown)
            labels.append(f"{name}\nround {tune.round}")
    axes.set(
        xticks=range(len(labels)),
        xticklabels=labels,
        ylabel="share of held-out questions",
        ylim=(0, 1),
    )
    _legend(axes)
    return figure


def _held(about: Mapping[str, Any]) -> int:
    # half of them turn the dial, the other half is the gate's
    return max(1, int(about.get("held out", 0)) // 2)


def _bars(axes: "Axes", place: int, gate: Mapping[str, Any], held: int, shown: set[str]) -> None:
    bars = {
        "right kept": ("kept", "belief"),
        "right declined": ("refused", "undecided"),
        "wrong declined": ("declined", "declined"),
    }
    if gold := gate.get("gold"):
        gate = {**gate, "right": gold[0], "wrong": gold[1]}
        bars |= {"gold right": ("right", "accent"), "gold wrong": ("wrong", "failed")}
    width = 0.8 / len(bars)
    for k, (label, (key, role)) in enumerate(bars.items()):
        value, at = float(gate[key]), place - 0.4 + (k + 0.5) * width
        low, high = wilson(value, held)
        axes.bar(at, value, width, color=COLOURS[role], label="" if label in shown else label)
        axes.plot([at, at], [low, high], color=COLOURS["ink"], linewidth=1)
        shown.add(label)


def losses(facts: Facts) -> "Figure | None":
    """Draw the loss of each tune, batch by batch, and of held-out questions after each epoch."""
    tuned = [one for one in facts.tunes if one.losses]
    if not tuned:
        return None
    figure, axes = canvas()
    for tune, role in zip(tuned, cycle(SHADES), strict=False):
        done, loss = zip(*tune.losses, strict=True)
        axes.plot(done, loss, color=COLOURS[role], linewidth=0.6, alpha=0.4)
        axes.plot(done, smooth(loss), color=COLOURS[role], label=f"round {tune.round}")
        epochs = tune.about.get("epochs") or []
        ends = [done[-1] * (k + 1) / len(epochs) for k in range(len(epochs))]
        axes.plot(
            ends,
            [one["held"] for one in epochs],
            "o",
            color=COLOURS[role],
            label=f"round {tune.round}, held out",
        )
    axes.set(xlabel="batches", ylabel="loss", ylim=(0, None))
    _legend(axes)
    return figure


def cost(facts: Facts) -> "Figure | None":
    """Draw where the time went."""
    if not facts.seconds:
        return None
    numbers = sorted({number for number, _ in facts.seconds})
    spent = [[facts.seconds.get((number, step), 0.0) / 60 for number in numbers] for step in STEPS]
    least = 0.005 * sum(facts.seconds.values()) / 60
    rows = [row for row in zip(STEPS, SHADES, spent, strict=True) if sum(row[2]) > least]
    return _stacked(numbers, rows, "minutes")


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of so many (Wilson 1927)."""
    z = 1.96
    middle, half = (
        share + z * z / (2 * count),
        z * sqrt(share * (1 - share) / count + z * z / (4 * count * count)),
    )
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


def smooth(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and up to nine before it."""
    return [
        sum(few) / len(few) for few in (values[max(0, k - 9) : k + 1] for k in range(len(values)))
    ]


def _legend(axes: "Axes") -> None:
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=4,
        borderaxespad=0.2,
        handlelength=1.2,
        columnspacing=1,
    )


PICTURES = (
    Picture(
        "rounds",
        "What each round came to",
        "Questions by what became of them. Dropped ones were never answered.",
        rounds,
    ),
    Picture(
        "growth", "What it knows", "Every question asked so far, as it was decided last.", growth
    ),
    Picture(
        "changes",
        "How rounds changed each other",
        "Questions asked before, or reworded, that are decided otherwise since.",
        changes,
    ),
    Picture(
        "topics",
        "Topics",
        "Each area is a topic, as large as it has questions: green is believed, yellow undecided, "
        "blue declined. "
        "The figures say how many are believed.",
        map_of_topics,
    ),
    Picture(
        "confidence",
        "How sure it is",
        "Confidence of each question's last answer. The dotted lines are the recipe's thresholds.",
        confidence,
    ),
    Picture(
        "reliability",
        "Whether it is as sure as it is right",
        "By gold answers, compared by the house rule (`exact`); the bars are 95 % intervals.",
        reliability,
    ),
    Picture(
        "risk",
        "Risk and coverage",
        "The share wrong if only the surest are answered. The dashed line takes the confidences "
        "at their word: "
        "it says nothing of the truth.",
        risk_coverage,
    ),
    Picture(
        "gates",
        "What each tune changed",
        "On held-out questions that it asked itself, each weighed by how likely its answer is "
        "right: right answers "
        "kept, right answers now declined, wrong ones declined. Lines are 95 % intervals.",
        gates,
    ),
    Picture(
        "losses",
        "Loss",
        "Of each batch, smoothed, and of held-out questions after each epoch.",
        losses,
    ),
    Picture("cost", "Where the time went", "By step; what took next to no time is left out.", cost),
)


def drawn(facts: Facts) -> "list[tuple[Picture, Figure]]":
    """Return the pictures for which there is something to draw."""
    with styled():
        found = [(picture, picture.draw(facts)) for picture in PICTURES]
    return [(picture, figure) for picture, figure in found if figure is not None]


def files_of(folder: Path, suffix: str) -> list[Path]:
    """Return where each picture would be written, also those for which there is nothing to draw."""
    return [folder / f"{picture.name}.{suffix}" for picture in PICTURES]


def is_picture(path: Path) -> bool:
    """Return whether a file is a picture that `saved` wrote."""
    return has_mark(path, "picture")


def saved(facts: Facts, folder: Path, suffix: str) -> list[Path]:
    """Write each picture as a file into a folder, whole; return the files.

    Raises StoreError for the disk.
    """
    paths = [(figure, folder / f"{picture.name}.{suffix}") for picture, figure in drawn(facts)]
    for figure, path in paths:
        save(figure, path)
    return [path for _, path in paths]
