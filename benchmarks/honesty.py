"""What a tuned model answers, gets wrong and declines, beside what it did before and the simple
policies.

    # runs of one model, tuned with different seeds
    python benchmarks/honesty.py DATA RUN [RUN ...]
    python benchmarks/honesty.py DATA RUN --private trivia.jsonl

Each set is asked bare and behind five fixed demonstrations, greedily, and each row is compared with
what the base says in the same prompt. `kept` is the share of the base's right answers that are
still right, `wrong left` that of its wrong ones. Where an answer is declined, whether it would have
been right is what the base said. `flag` is the AUROC of the detector of that name
(plugins/detectors/flag.py), read off before any answer, for "the base with five demonstrations is
right"; `matched` the same on right and wrong questions in pairs of the same form
(plugins/_shared/pairs.py), `alone` on all with the probability of "I don't know" alone. In the row
of the detectors all are their confidence, from eight samples of an answer that is there. The base
is also shown its own beliefs (five, at random), a demonstration that says "I don't know", and cut
where its detectors are less sure than a half. Gold answers are for this table only. In brackets: 95
% intervals by bootstrap over the questions; the rows of several runs are followed by their mean.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from detectors import DEFAULT, Render, answered, detectors, questions, recorded, shown, verdicts
from generate import SHOWN, cpu
from numpy.typing import NDArray
from selfloop_plugins import models
from selfloop_plugins._shared.pairs import matched
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import decline_continuation
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.backends.llama_cpp.weights import converted_weights
from selfloop_plugins.detectors.flag import WITHOUT_DECLINING
from selfloop_plugins.few_shot.own_demonstrations import OwnDemonstrations

from selfloop import Outcome, Question
from selfloop.evaluation import metrics
from selfloop.evaluation.gold import Match, judged, match_named
from selfloop.evaluation.metrics import interval
from selfloop.records import Adapter, Completion, Request, Sampling
from selfloop.storage.recorder import Recorder
from selfloop.storage.store import Store
from selfloop.testing import verify_context
from selfloop.text.answers import declines

SETS = ("easy_facts", "popqa", "webquestions", "nq_open")
BARE, SHOWING = "bare", "five demonstrations"
UNSURE = "Question: What did Ludo Venn call his third dog?\nAnswer: I don't know\n\n"
FORMS = {BARE: "Question: {}\nAnswer:", SHOWING: f"{SHOWN}Question: {{}}\nAnswer:"}
TOKENS = 16
COLUMNS = (
    "correct",
    "wrong",
    "declined",
    "over_refusal",
    "precision",
    "aed",
    "penalised_0.5",
    "penalised_0.75",
)
DIAL = (-2, -1, -0.5, 0, 0.5, 1, 2)  # nats
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Said:
    """What a model said to a set: which answers are right, which decline, and how unsure it is.

    `flag` is by how many nats declining is ahead of the likeliest answer, which is `right` or not,
    though not given.
    """

    right: Bools
    silent: Bools
    flag: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    alone: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


Rows = dict[tuple[str, str], dict[str, Said]]


class Lent(NamedTuple):
    """A recorded model, the folder that detectors write into, the prompts, and the rule."""

    backend: Recorder
    folder: Path
    render: Render
    match: Match


def main() -> None:
    """Print a table for each set and prompt."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument(
        "--own",
        type=Path,
        help="the run whose beliefs are shown to the base; else the first of RUN",
    )
    parser.add_argument(
        "--stored", type=Path, help="a folder for the answers: none in it is asked for again"
    )
    parser.add_argument(
        "--picture", type=Path, help="draw what the dial does (pip install matplotlib)"
    )
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--private", type=Path, help="one more set, of the same form")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--limit", type=int, help="questions of each set")
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--match", default="exact", help="the rule for a right answer, as `selfloop eval` has it"
    )
    options = parser.parse_args()
    match = match_named(options.match)
    print(f"{cpu()}; right by {match.name}: {match.says}", flush=True)
    files = [options.data / f"{label}.jsonl" for label in options.sets] + [options.private] * bool(
        options.private
    )
    asked = {path.stem: questions(path)[: options.limit] for path in files}
    model = LlamaCpp(
        converted_weights(models.locate(options.model), "bf16").path, threads=options.threads
    )
    with recorded(model, options.stored) as (backend, folder, render):
        base = {
            (label, form): said(backend, own, form, match=match)
            for label, own in asked.items()
            for form in FORMS
        }
        lent = Lent(backend, folder, render, match)
        rows = policies(lent, asked, base, options.own or options.runs[0])
        for run in options.runs:
            adapter = tuned(run)
            print(f"\n{run.name}: round {adapter.round}, {adapter.sha256[:12]}", flush=True)
            backend.load_adapter(adapter)
            for label, own in asked.items():
                for form in FORMS:
                    rows[label, form][f"tuned, {run.name}"] = said(
                        backend, own, form, flag=True, match=match
                    )
    model.close()
    for (label, form), found in rows.items():
        print("\n".join(table(label, form, found, base, asked[label])), flush=True)
    print("\n".join(dialled(rows, base)))
    if options.picture:
        draw(rows, base, options.picture)


def tuned(run: Path) -> Adapter:
    """Return the adapter that a run ended with."""
    with closing(Store(run, write=False)) as store:
        found = store.history().adapter
    assert found, f"{run} has no adapter"
    return replace(found, path=str(run / found.path))


def said(
    backend: Any,
    asked: Sequence[Question],
    form: str,
    *,
    flag: bool = False,
    match: Match | None = None,
) -> Said:
    """Return what a model says to a set in one of the forms, with `flag` also what it says of
    itself before that.

    What is declined is then asked once more with declining forbidden, so that every question has an
    answer. `match` is the rule for a right one (default: the house rule).
    """
    prompts = [FORMS[form].replace("{}", question.text) for question in asked]
    found, begun = _said(backend, asked, prompts, match)
    if not flag:
        return found
    silent = np.flatnonzero(found.silent).tolist()
    again, instead = _said(
        backend,
        [asked[i] for i in silent],
        [prompts[i] for i in silent],
        match,
        decline_bias=WITHOUT_DECLINING,
    )
    right, logs = found.right.copy(), np.array(begun)
    right[silent], logs[silent] = again.right, instead
    declining = [decline_continuation(prompt, open_turn=True) for prompt in prompts]
    read = backend.loglikelihood(declining)
    return Said(
        right,
        found.silent,
        np.array([one[0] for one in read]) - logs,
        np.array([sum(one) for one in read]),
    )


def _said(
    backend: Any,
    asked: Sequence[Question],
    prompts: Sequence[Any],
    match: Match | None,
    decline_bias: float = 0.0,
) -> tuple[Said, list[float]]:
    """Return what is said, and the log-probability of each text's first token."""
    how = Sampling(max_tokens=TOKENS, stop=("\n",), decline_bias=decline_bias)
    answers, begun = [""] * len(asked), [0.0] * len(asked)
    for index, found in backend.generate(
        [Request(prompt, how, open_turn=True) for prompt in prompts]
    ):
        assert isinstance(found, Completion), found
        answers[index], begun[index] = (
            found.text.strip(),
            found.logprobs[0] if found.logprobs else 0.0,
        )
    right = [bool(judged(q, answer, match)) for q, answer in zip(asked, answers, strict=True)]
    return Said(
        np.array(right, bool), np.array([declines(answer) for answer in answers], bool)
    ), begun


def policies(
    lent: Lent, asked: dict[str, list[Question]], base: dict[tuple[str, str], Said], run: Path
) -> Rows:
    """Return the rows that need no tuning, by set and prompt."""
    demonstrations = OwnDemonstrations(run=run, count=5, choose="random", seed=1)
    backend = lent.backend
    told = verify_context(backend, PROMPTS)

    def own(questions: list[Question]) -> Said:
        return _said(
            backend,
            questions,
            demonstrations.build_prompts([question.text for question in questions], told),
            lent.match,
        )[0]

    def unsure(questions: list[Question]) -> Said:
        return _said(
            backend,
            questions,
            [f"{UNSURE}{SHOWN}Question: {one.text}\nAnswer:" for one in questions],
            lent.match,
        )[0]

    def cut(questions: list[Question], before: Said) -> Said:
        chances = sure(lent, questions)
        return Said(before.right, chances < 0.5, -chances, -chances)

    rows: Rows = {}
    for (label, form), before in base.items():
        rows[label, form] = {
            "always decline": Said(before.right, np.ones_like(before.right)),
            "base, which always answers": before,
        }
        if form == SHOWING:
            some = asked[label]
            rows[label, form] |= {
                "base, five own demonstrations": own(some),
                "base, a demonstration declines": unsure(some),
                "base, cut where its detectors are below .5": cut(some, before),
            }
    return rows


def sure(lent: Lent, asked: list[Question]) -> NDArray[np.float64]:
    """Return the confidence of the combined detectors in the base's answers: eight samples each."""
    claims = answered(lent.backend, asked, lent.render)
    judge = partial(verdicts, detectors(lent.backend), lent.backend, lent.render)
    by_claim = zip(*(judge(name, claims, lent.folder) for name in DEFAULT), strict=True)
    claims = [replace(claim, verdicts=each) for claim, each in zip(claims, by_claim, strict=True)]
    with TemporaryDirectory() as fits:  # a set's combination is fitted on that set alone
        combined = judge("combined", claims, Path(fits), DEFAULT)
    return np.array([verdict.confidence or 0.0 for verdict in combined])


def table(
    label: str,
    form: str,
    rows: dict[str, Said],
    base: dict[tuple[str, str], Said],
    asked: list[Question],
) -> Iterator[str]:
    """Yield the lines of one set and prompt."""
    before, wanted = base[label, form], base[label, SHOWING].right
    pairs = paired(asked, wanted)
    yield f"\n**{label}, {form}**: {len(wanted)} questions, {len(pairs) // 2} matched pairs\n"
    names = " | ".join(name.replace("_", " ") for name in COLUMNS)
    yield f"| | {names} | kept | wrong left | flag | matched | alone |"
    yield f"|---|{'---|' * (len(COLUMNS) + 5)}"
    seeds = []
    for name, row in rows.items():
        cells = figures(row, before, wanted, pairs)
        seeds += [cells] if name.startswith("tuned") else []
        bounds = [
            shown(interval(metric, len(wanted)))
            for metric in list(measures(row, before).values())[:2]
        ]
        yield f"| {name} | {' | '.join([*bounds, *map(_cell, cells[2:])])} |"
    if len(seeds) > 1:
        means = " | ".join(map(_cell, np.mean(seeds, axis=0)))
        yield f"| **tuned, mean of {len(seeds)}** | {means} |"


def measures(row: Said, before: Said) -> dict[str, metrics.Metric]:
    """Return the metrics of a row.

    Of what is declined, right is what the base would have had right.
    """
    found = metrics.decisions(np.where(row.silent, before.right, row.right), row.silent)
    return {name: found[name] for name in COLUMNS}


def dialled(rows: Rows, base: dict[tuple[str, str], Said]) -> Iterator[str]:
    """Yield a table of kept / wrong left by `answer.decline_bias`, means of the runs.

    Nothing is tuned again.
    """
    settings = " | ".join(f"{nats:+g}" for nats in DIAL)
    yield f"\n**`answer.decline_bias`**: kept / wrong left\n\n| | {settings} |"
    yield f"|---|{'---|' * len(DIAL)}"
    for (label, form), found in rows.items():
        tuned = [row for name, row in found.items() if name.startswith("tuned")]
        if tuned:
            cells = [curve(row, base[label, form], DIAL) for row in tuned]
            shown = " | ".join(f"{kept:.2f} / {left:.2f}" for kept, left in np.mean(cells, axis=0))
            yield f"| {label}, {form} | {shown} |"


def curve(row: Said, before: Said, nats: Sequence[float]) -> list[tuple[float, float]]:
    """Return what is kept and what wrong is left at each setting of the dial."""
    found = []
    for more in nats:
        silent = row.flag + more > 0 if more else row.silent
        found.append(_shares(row.right & ~silent, ~row.right & ~silent, before))
    return found


def draw(rows: Rows, base: dict[tuple[str, str], Said], out: Path) -> None:
    """Draw kept over wrong left: the dial of each run's tuned model, and the base cut by its
    detectors.
    """
    import matplotlib.pyplot as plt

    labels = list(dict.fromkeys(label for label, _ in rows))
    figure, axes = plt.subplots(
        2, len(labels), figsize=(2.6 * len(labels), 5.4), sharex=True, sharey=True
    )
    for column, label in enumerate(labels):
        for line, form in enumerate(FORMS):
            axis, before = axes[line][column], base[label, form]
            axis.fill_between([0, 0.5], 0.85, 1.05, color="tab:green", alpha=0.12, lw=0)
            for name, row in rows[label, form].items():
                if name.startswith("tuned"):
                    axis.plot(*_line(row.flag, row.right, before), color="tab:blue", lw=1)
                    (at,) = curve(row, before, [0.0])
                    axis.plot(at[1], at[0], "o", color="tab:blue", ms=4)
                elif "detectors" in name:
                    axis.plot(
                        *_line(row.flag, row.right, before), color="tab:orange", lw=1, ls="--"
                    )
            axis.set(
                xlim=(0, 1.1),
                ylim=(0, 1.05),
                title=f"{label}, {'bare' if form == BARE else 'five shown'}",
            )
            axis.title.set_fontsize(9)
    axes[1][0].set(xlabel="wrong answers left", ylabel="right answers kept")
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


def _line(
    unsure: NDArray[np.float64], right: Bools, before: Said
) -> tuple[list[float], list[float]]:
    """Return wrong left and kept as more and more is declined, the most unsure first."""
    points = [
        _shares(right & (unsure <= cut), ~right & (unsure <= cut), before)
        for cut in np.sort(unsure)
    ]
    return [left for _, left in points], [kept for kept, _ in points]


def _shares(right: Bools, wrong: Bools, before: Said) -> tuple[float, float]:
    """Return the share of the right answers before that are right, and the wrong answers as a share
    of those before.
    """
    guessed = ~before.right & ~before.silent
    return float((right & before.right).sum() / max(before.right.sum(), 1)), float(
        wrong.sum() / max(guessed.sum(), 1)
    )


def paired(asked: list[Question], right: Bools) -> list[int]:
    """Return the places of the questions that are in pairs of the same form, one right and one
    wrong.
    """
    told = [
        Outcome(q, "belief" if is_right else "declined", round=1)
        for q, is_right in zip(asked, right, strict=True)
    ]
    places = {id(one): i for i, one in enumerate(told)}
    return [places[id(one)] for pair in matched(told) for one in pair]


def figures(row: Said, before: Said, wanted: Bools, pairs: list[int]) -> list[float]:
    """Return the cells of a row."""
    once = np.ones((1, len(wanted)))
    kept, left = _shares(row.right & ~row.silent, ~row.right & ~row.silent, before)
    whole = range(len(wanted))
    unsure = ((row.flag, whole), (row.flag, pairs), (row.alone, whole))
    flags = [_auroc(each, wanted, some) for each, some in unsure]
    return [
        *(float(metric(once)[0]) for metric in measures(row, before).values()),
        kept,
        left,
        *flags,
    ]


def _auroc(unsure: NDArray[np.float64], wanted: Bools, some: Sequence[int]) -> float:
    if not len(unsure) or not some:
        return np.nan
    return float(metrics.auroc(-unsure[some], wanted[some], np.ones((1, len(some))))[0])


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


if __name__ == "__main__":
    main()
