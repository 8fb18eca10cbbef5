"""The figures of a report: each is drawn from the summary of a run, or left out where there is
nothing to draw."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from selfloop_plugins._shared.output import has_mark

from selfloop.evaluation.belief_history import Change
from selfloop.history import History

from .figure_style import COLOURS, new_figure, save_figure, styled
from .run_summary import RunSummary
from .topics import Topic, topics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DECISIONS = ("belief", "undecided", "declined")
STEPS = ("ask", "answer", "critique", "revise", "verify", "decide", "tune")
# a colour for each step, and for each tune
STEP_COLOURS = ("accent", "belief", "undecided", "failed", "declined", "dropped", "soft")
CHANGES: Mapping[Change, tuple[str, str]] = {
    "found": ("now believed", "belief"),
    "changed": ("another answer", "undecided"),
    "lost": ("no longer believed", "failed"),
}
MAX_TOPICS = 40  # on the map
MAX_LABELS = 20  # of rounds one by one
BINS = 20  # of the histogram of confidences
MAP_SIZE = (960, 460)  # of the map of topics, in units of its axes
LETTER_WIDTH = 8  # of a name on the map, in these units
SMOOTHED_BATCHES = 10
MIN_COST_SHARE = 0.005  # of the time: steps that took less are left out
Z_95 = 1.96  # standard deviations on either side of a 95 % interval


# the shares of a gate that are drawn: label and colour
GATE_BARS: Mapping[str, tuple[str, str]] = {
    "kept": ("right kept", "belief"),
    "refused": ("right declined", "undecided"),
    "declined": ("wrong declined", "declined"),
    "gold right": ("gold right", "accent"),
    "gold wrong": ("gold wrong", "failed"),
}


@dataclass(frozen=True)
class ReportFigure:
    """A figure of a report: its name, title and caption, and the function that draws it."""

    name: str
    title: str
    caption: str
    draw: "Callable[[RunSummary], Figure | None]"


def round_counts(run: RunSummary) -> "Figure | None":
    """Draw how many questions of each round had which decision."""
    if not run.rounds:
        return None
    rows: list[tuple[str, str, Sequence[float]]] = []
    for decision in (*DECISIONS, "failed", "dropped"):
        counts = [ended.count(decision) for ended in run.rounds]  # type: ignore[arg-type]
        if any(counts):
            rows.append((decision, decision, counts))
    return _stacked_bars([ended.number for ended in run.rounds], rows, "questions")


def _stacked_bars(
    numbers: Sequence[int], rows: Sequence[tuple[str, str, Sequence[float]]], unit: str
) -> "Figure":
    """Draw a bar for each round, made of rows: label, role of its colour, length in each round."""
    figure, axes = new_figure(height=1.3 + 0.42 * min(len(numbers), MAX_LABELS))
    left = [0.0] * len(numbers)
    for label, role, lengths in rows:
        axes.barh(numbers, lengths, left=left, color=COLOURS[role], label=label, height=0.7)
        left = [start + length for start, length in zip(left, lengths, strict=True)]
    # the first round on top
    axes.set(xlabel=unit, ylabel="round", ylim=(max(numbers) + 0.5, min(numbers) - 0.5))
    _label_whole_numbers(axes.yaxis, numbers)
    _add_legend(axes)
    return figure


def _label_whole_numbers(axis: "Axis", numbers: Sequence[int] = ()) -> None:
    """Label whole numbers only: each of `numbers` if there is room, else as many as fit."""
    from matplotlib.ticker import MaxNLocator

    if 0 < len(numbers) <= MAX_LABELS:
        axis.set_ticks(numbers)
        return
    axis.set_major_locator(
        MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )


def growth(run: RunSummary) -> "Figure | None":
    """Draw how many questions were believed and declined after each round."""
    if len(run.rounds) < 2:
        return None
    figure, axes = new_figure()
    numbers = [ended.number for ended in run.rounds]
    counts = [_decisions_after(run, number) for number in numbers]
    for decision in DECISIONS:
        heights = [count[decision] for count in counts]
        axes.plot(numbers, heights, "o-", color=COLOURS[decision], label=decision)
    axes.set(xlabel="after round", ylabel="questions", ylim=(0, None))
    _label_whole_numbers(axes.xaxis, numbers)
    _label_whole_numbers(axes.yaxis)
    _add_legend(axes)
    return figure


def _decisions_after(run: RunSummary, number: int) -> Counter[str]:
    """Return how many questions have which decision after a round, each as it was decided last."""
    history = History.from_rounds(run.rounds[:number])
    return Counter(
        {outcome.question.text: outcome.decision for outcome in history.outcomes}.values()
    )


def changes(run: RunSummary) -> "Figure | None":
    """Draw how each round changed earlier beliefs: bars upwards for new and other answers,
    downwards for beliefs that were lost."""
    counts = Counter((flip.after.round, flip.change) for flip in run.flips)
    if not counts:
        return None
    figure, axes = new_figure()
    numbers = [ended.number for ended in run.rounds]
    tops, bottoms = [0] * len(numbers), [0] * len(numbers)
    for change, (label, role) in CHANGES.items():
        sign, ends = (-1, bottoms) if change == "lost" else (1, tops)
        heights = [sign * counts[number, change] for number in numbers]
        if not any(heights):
            continue
        axes.bar(numbers, heights, bottom=ends, color=COLOURS[role], label=label, width=0.6)
        ends[:] = [end + height for end, height in zip(ends, heights, strict=True)]
    axes.axhline(0, color=COLOURS["soft"], linewidth=0.8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set(xlabel="round", ylabel="earlier questions")
    _label_whole_numbers(axes.xaxis, numbers)
    _label_whole_numbers(axes.yaxis)
    _add_legend(axes)
    return figure


def confidence(run: RunSummary) -> "Figure | None":
    """Draw a histogram of the last answers' confidences, by decision."""
    confidences: dict[str, list[float]] = {decision: [] for decision in DECISIONS}
    for _, attempt in run.last_attempts:
        if attempt.decision in confidences and attempt.confidence is not None:
            confidences[attempt.decision].append(attempt.confidence)
    if not any(confidences.values()):
        return None
    figure, axes = new_figure()
    axes.hist(
        list(confidences.values()),
        bins=[k / BINS for k in range(BINS + 1)],
        stacked=True,
        label=DECISIONS,
        color=[COLOURS[decision] for decision in DECISIONS],
    )
    for threshold in (run.decide.declined, run.decide.belief):
        axes.axvline(threshold, color=COLOURS["ink"], linewidth=1, linestyle=":")
    axes.set(xlabel="confidence", ylabel="questions", xlim=(0, 1))
    _add_legend(axes)
    return figure


def reliability(run: RunSummary) -> "Figure | None":
    """Draw the share of right answers at each confidence, where there are gold answers."""
    if run.measured is None:
        return None
    figure, axes = new_figure(4.4, 3.6)
    bins = run.measured.confidence.reliability
    axes.plot(
        [0, 1], [0, 1], color=COLOURS["soft"], linewidth=1, linestyle=":", label="as sure as right"
    )
    means, shares = [], []
    for mean, share, count in zip(bins["confidence"], bins["right"], bins["count"], strict=True):
        if not count:
            continue
        low, high = wilson_interval(share, int(count))
        axes.plot([mean, mean], [low, high], color=COLOURS["line"], linewidth=3, zorder=1)
        means.append(mean)
        shares.append(share)
    axes.plot(means, shares, "o-", color=COLOURS["accent"], label="this run")
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    _add_legend(axes)
    return figure


def risk_coverage(run: RunSummary) -> "Figure | None":
    """Draw the share of wrong answers among the surest: by gold answers, and as the confidences
    themselves predict it."""
    confidences = [
        attempt.confidence for _, attempt in run.last_attempts if attempt.confidence is not None
    ]
    if not confidences and run.measured is None:
        return None
    figure, axes = new_figure(4.4, 3.6)
    if run.measured is not None:
        curve = run.measured.confidence.risk_coverage
        axes.plot(
            curve["coverage"], curve["risk"], color=COLOURS["failed"], label="by gold answers"
        )
    coverages, risks = [], []
    expected_wrong = 0.0  # among the surest so far: the sum of 1 - confidence
    for count, value in enumerate(sorted(confidences, reverse=True), 1):
        expected_wrong += 1 - value
        coverages.append(count / len(confidences))
        risks.append(expected_wrong / count)
    axes.plot(
        coverages, risks, color=COLOURS["accent"], linestyle="--", label="by its own confidence"
    )
    axes.set(
        xlabel="share answered, surest first",
        ylabel="share wrong of these",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    _add_legend(axes)
    return figure


def map_of_topics(run: RunSummary) -> "Figure | None":
    """Draw the topics as areas (a treemap): as large as there are questions, the greener the more
    is believed."""
    topics = topics_of(run.last_attempts)[:MAX_TOPICS]
    if not topics:
        return None
    import squarify  # type: ignore[import-untyped]

    width, height = MAP_SIZE
    figure, axes = new_figure(width / 100, height / 100)
    sizes = squarify.normalize_sizes([topic.questions for topic in topics], width, height)
    boxes = squarify.padded_squarify(sizes, 0, 0, width, height)  # each with x, y, dx, dy
    for topic, box in zip(topics, boxes, strict=True):
        _draw_topic(axes, topic, box)
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return figure


def _draw_topic(axes: "Axes", topic: Topic, box: Mapping[str, float]) -> None:
    """Draw one topic: three strips as wide as its shares of decisions, its name and its counts."""
    left, total = box["x"], max(topic.questions, 1)
    for decision in DECISIONS:
        width = box["dx"] * topic.counts[decision] / total
        axes.barh(
            box["y"],
            width,
            box["dy"],
            left=left,
            align="edge",
            color=COLOURS[decision],
            alpha=0.45,
            linewidth=0,
        )
        left += width
    letters = int(box["dx"] / LETTER_WIDTH)
    if letters < 4 or box["dy"] <= 18:  # no room for a name
        return
    name = topic.name if len(topic.name) <= letters else f"{topic.name[: letters - 1]}…"
    x = box["x"] + 5
    axes.text(x, box["y"] + 5, name, fontsize=9, va="top", clip_on=True)
    if box["dy"] > 34:  # room for a second line
        counts = f"{topic.counts['belief']} of {topic.questions}"
        axes.text(
            x,
            box["y"] + 20,
            counts,
            fontsize=8,
            va="top",
            color=COLOURS["soft"],
            clip_on=True,
        )


def gates(run: RunSummary) -> "Figure | None":
    """Draw the effect of each tune on held-out questions, with 95 % intervals."""
    reports = [(tune.round, tune.gate) for tune in run.tunes if tune.gate is not None]
    reports = [(number, gate) for number, gate in reports if gate.base and gate.tuned]
    if not reports:
        return None
    figure, axes = new_figure(5.2, 3.4)
    labels, labelled = list[str](), set[str]()
    for number, gate in reports:
        # half of the held-out questions set the decline bias, the other half is the gate's
        questions = max(1, gate.held_out // 2)
        for name, figures in (("before", gate.base), ("after", gate.tuned)):
            _draw_gate_bars(axes, len(labels), figures, questions, labelled)
            labels.append(f"{name}\nround {number}")
    axes.set(
        xticks=range(len(labels)),
        xticklabels=labels,
        ylabel="share of held-out questions",
        ylim=(0, 1),
    )
    _add_legend(axes)
    return figure


def _draw_gate_bars(
    axes: "Axes",
    position: int,
    figures: Mapping[str, float],
    questions: int,
    labelled: set[str],
) -> None:
    """Draw one model's bars side by side; a bar that is in `labelled` is in the legend already."""
    bars = {name: GATE_BARS[name] for name in GATE_BARS if name in figures}
    width = 0.8 / len(bars)
    for k, (name, (label, role)) in enumerate(bars.items()):
        share, center = figures[name], position - 0.4 + (k + 0.5) * width
        low, high = wilson_interval(share, questions)
        legend = "" if label in labelled else label
        axes.bar(center, share, width, color=COLOURS[role], label=legend)
        axes.plot([center, center], [low, high], color=COLOURS["ink"], linewidth=1)
        labelled.add(label)


def losses(run: RunSummary) -> "Figure | None":
    """Draw the loss of each tune, batch by batch, and of held-out questions after each epoch."""
    tunes = [tune for tune in run.tunes if tune.losses]
    if not tunes:
        return None
    figure, axes = new_figure()
    for tune, role in zip(tunes, cycle(STEP_COLOURS), strict=False):
        batches, batch_losses = zip(*tune.losses, strict=True)
        axes.plot(batches, batch_losses, color=COLOURS[role], linewidth=0.6, alpha=0.4)
        axes.plot(batches, smoothed(batch_losses), color=COLOURS[role], label=f"round {tune.round}")
        held_out = tune.gate.held_out_losses if tune.gate else ()
        # all epochs have the same number of batches
        ends = [batches[-1] * (k + 1) / len(held_out) for k in range(len(held_out))]
        label = f"round {tune.round}, held out"
        axes.plot(ends, held_out, "o", color=COLOURS[role], label=label)
    axes.set(xlabel="batches", ylabel="loss", ylim=(0, None))
    _add_legend(axes)
    return figure


def cost(run: RunSummary) -> "Figure | None":
    """Draw the minutes of each step by round."""
    if not run.seconds:
        return None
    numbers = sorted({number for number, _ in run.seconds})
    least = MIN_COST_SHARE * sum(run.seconds.values()) / 60
    rows: list[tuple[str, str, Sequence[float]]] = []
    for step, role in zip(STEPS, STEP_COLOURS, strict=True):
        minutes = [run.seconds.get((number, step), 0.0) / 60 for number in numbers]
        if sum(minutes) > least:
            rows.append((step, role, minutes))
    return _stacked_bars(numbers, rows, "minutes")


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share among `count` (Wilson 1927).

    (p + z²/2n ± z sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n)
    """
    z = Z_95
    center = share + z * z / (2 * count)
    half = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (center - half) / scale, (center + half) / scale


def smoothed(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and up to nine before it."""
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - SMOOTHED_BATCHES) : end]
        means.append(sum(window) / len(window))
    return means


def _add_legend(axes: "Axes") -> None:
    """Put a legend above the axes, where anything has a label."""
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


FIGURES = (
    ReportFigure(
        "rounds",
        "Decisions by round",
        "Questions by decision. Dropped ones were never answered.",
        round_counts,
    ),
    ReportFigure(
        "growth", "All questions so far", "Each question counts as it was decided last.", growth
    ),
    ReportFigure(
        "changes",
        "How rounds changed each other",
        "Questions asked before, or reworded, that are decided otherwise since.",
        changes,
    ),
    ReportFigure(
        "topics",
        "Topics",
        "Each area is a topic, as large as it has questions: green is believed, yellow undecided, "
        "blue declined. The figures say how many are believed.",
        map_of_topics,
    ),
    ReportFigure(
        "confidence",
        "How sure it is",
        "Confidence of each question's last answer. The dotted lines are the recipe's thresholds.",
        confidence,
    ),
    ReportFigure(
        "reliability",
        "Whether it is as sure as it is right",
        "By gold answers, compared by the house rule (`exact`); the bars are 95 % intervals.",
        reliability,
    ),
    ReportFigure(
        "risk",
        "Risk and coverage",
        "The share wrong if only the surest are answered. The dashed line takes the confidences "
        "at their word: it says nothing of the truth.",
        risk_coverage,
    ),
    ReportFigure(
        "gates",
        "Effect of each tune",
        "On held-out questions that it asked itself, each weighed by how likely its answer is "
        "right: right answers kept, right answers now declined, wrong ones declined. Lines are "
        "95 % intervals.",
        gates,
    ),
    ReportFigure(
        "losses",
        "Loss",
        "Of each batch, smoothed, and of held-out questions after each epoch.",
        losses,
    ),
    ReportFigure(
        "cost",
        "Where the time went",
        "By step; steps that took next to no time are left out.",
        cost,
    ),
)


def draw_all(run: RunSummary) -> "list[tuple[ReportFigure, Figure]]":
    """Return the figures of a run for which there is something to draw."""
    drawings = []
    with styled():
        for report_figure in FIGURES:
            drawing = report_figure.draw(run)
            if drawing is not None:
                drawings.append((report_figure, drawing))
    return drawings


def figure_paths(folder: Path, suffix: str) -> list[Path]:
    """Return where each figure would be written, also those for which there is nothing to draw."""
    return [folder / f"{figure.name}.{suffix}" for figure in FIGURES]


def is_figure(path: Path) -> bool:
    """Return whether a file is a figure that `save_all` wrote."""
    return has_mark(path, "picture")


def save_all(run: RunSummary, folder: Path, suffix: str) -> list[Path]:
    """Write each figure into a folder as a file, whole; return the files.

    Raises StoreError for the disk.
    """
    paths = []
    for report_figure, drawing in draw_all(run):
        path = folder / f"{report_figure.name}.{suffix}"
        save_figure(drawing, path)
        paths.append(path)
    return paths
