"""How well detectors tell right answers from wrong ones, on question sets with gold answers.

    python benchmarks/detectors.py DATA                    # a folder of JSONL files; both models

Each question gets one greedy answer and eight samples at temperature 0.7, drawn once for all
detectors. Gemma, a base model, sees five demonstrations; SmolLM2 gets the recipes' own prompt. Gold
answers are used for nothing but these tables: `combined`, over the detectors of
recipes/quickstart.yaml, fits itself on the set's answers without labels, as it does in a run. The
others are as they are, uncalibrated. Where a detector abstains, its confidence counts as 0: the
answer would not be believed. Seconds are a detector's own, for 1,000 questions, in addition to
answering; what it asks of the model that another has asked before is read from the store, as in a
run, and not asked again.

With --stored FOLDER the store is kept: a later call judges the same answers again, by the rule of
the day for "the same answer", and asks the model for nothing that is there. Its seconds are then
those of reading the store.
"""

import argparse
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from generate import MODELS, SHOWN, cpu
from numpy.typing import NDArray
from selfloop_plugins import models
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.backends.llama_cpp.weights import converted_weights

from selfloop import Claim, Completion, Component, Question, Verdict, VerifyContext
from selfloop.config.prompts import Prompt, Prompts, is_open
from selfloop.data import rows
from selfloop.evaluation import metrics
from selfloop.evaluation.gold import Match, judged, match_named
from selfloop.evaluation.metrics import Estimate, interval
from selfloop.protocols import Backend
from selfloop.records import Request, Sampling
from selfloop.registry.manager import load
from selfloop.storage.recorder import Recorder
from selfloop.storage.store import Store
from selfloop.text.answers import declines

SETS = ("easy_facts", "popqa", "nq_open", "webquestions", "curatedtrec")
# as in recipes/quickstart.yaml
DEFAULT = ("agreement", "sequence_probability", "meaning_probability", "pmi")
COMBINED = {"combined": DEFAULT, "combined, with prompt_stability": (*DEFAULT, "prompt_stability")}
SAMPLES, TEMPERATURE, TOKENS = 8, 0.7, 24
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "discrete_semantic_entropy, same: alias": ("discrete_semantic_entropy", {"same": "alias"}),
    "discrete_semantic_entropy, same: model": ("discrete_semantic_entropy", {"same": "model"}),
}
# What these ask of the model costs more than the answers did; they judge only some of the
# questions.
COSTLY = (
    "bsdetector",
    "paraphrase",
    "reverse_question",
    "selfcheck_prompt",
    "discrete_semantic_entropy, same: model",
)
Render = Callable[..., Prompt]
UNTOLD = "cannot be told"


def main() -> None:
    """Print one table for each model and set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument("--weights", default="auto")
    parser.add_argument(
        "--costly", type=int, default=200, help="how many questions the costliest detectors judge"
    )
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument(
        "--stored",
        type=Path,
        help="a folder for what the models wrote and read: asked for once only",
    )
    parser.add_argument(
        "--match", default="exact", help="the rule for a right answer, as `selfloop eval` has it"
    )
    options = parser.parse_args()
    rule = match_named(options.match)
    print(f"{cpu()}; right by {rule.name}: {rule.says}", flush=True)
    for name in options.names:
        path = converted_weights(models.locate(name), options.weights).path
        backend = LlamaCpp(path)
        for label in options.sets:
            asked = questions(options.data / f"{label}.jsonl")
            title = f"{name}** ({path.name}), **{label}"
            store = options.stored / name / label if options.stored else None
            for line in measured(title, asked, backend, options.costly, store, rule):
                print(line, flush=True)
        backend.close()


def measured(
    label: str,
    asked: list[Question],
    backend: LlamaCpp,
    costly: int,
    stored: Path | None = None,
    rule: Match | None = None,
) -> Iterator[str]:
    """Yield the lines of one set's table."""
    with recorded(backend, stored) as (recorder, folder, render):
        start = time.perf_counter()
        claims = answered(recorder, asked, render)
        seconds = time.perf_counter() - start
        right = rights(claims, rule)
        silent = np.mean([declines(claim.answer.text) for claim in claims])
        accuracy = shown(interval(partial(metrics.mean, right), len(right)))
        yield f"\n**{label}**: {len(asked)} questions, accuracy {accuracy}, {silent:.0%}"
        yield f"declined; answering took {1000 * seconds / len(asked):.0f} s for 1,000 questions\n"
        yield from table(claims, right, recorder, folder, render, costly)


def questions(path: Path) -> list[Question]:
    """Return the questions of a JSONL file, with what counts as right."""
    return [
        Question(
            row["question"],
            path.stem,
            gold=tuple(row["answers"]),
            gold_pattern=row.get("answer_regex", ""),
        )
        for row in rows(path)
    ]


def rights(claims: Iterable[Claim], rule: Match | None = None) -> NDArray[np.bool_]:
    """Return which answers are right."""
    return np.array([bool(judged(claim.question, claim.answer.text, rule)) for claim in claims])


@contextmanager
def recorded(
    backend: LlamaCpp, stored: Path | None = None
) -> Iterator[tuple[Recorder, Path, Render]]:
    """Lend the backend as a run has it: its prompts, and recorded in `stored`, or in a folder that
    goes away.

    The folder that is yielded always goes away: detectors write into it, and their fits belong to
    one call.
    """
    with (
        TemporaryDirectory() as scratch,
        closing(Store(stored or Path(scratch), write=True)) as store,
    ):
        store.begin_session({})
        recorder = Recorder(cast(Backend, backend), store, lambda event: None)
        yield (
            recorder,
            Path(scratch),
            prompts(detectors(recorder).values(), recorder.describe().chat, Path(scratch)),
        )


def answered(backend: Recorder, questions: list[Question], render: Render) -> list[Claim]:
    """Return each question with its greedy answer and its samples."""
    greedy = Sampling(max_tokens=TOKENS, stop=("\n",))
    drawn = Sampling(TEMPERATURE, max_tokens=TOKENS, stop=("\n",))
    requests = []
    for seed, question in enumerate(questions):
        prompt = render("answer", question=question.text)
        requests.append(Request(prompt, greedy, open_turn=is_open(prompt), entropy=True))
        requests.append(Request(prompt, drawn, n=SAMPLES, seed=seed, open_turn=is_open(prompt)))
    found: list[dict[int, Completion]] = [{} for _ in requests]
    for index, completion in backend.generate(requests):
        assert isinstance(completion, Completion), completion
        found[index][completion.sample] = completion
    samples = [tuple(made[k] for k in sorted(made)) for made in found]
    return [Claim(q, samples[2 * i][0], samples[2 * i + 1]) for i, q in enumerate(questions)]


def prompts(components: Iterable[Component], chat: bool, home: Path) -> Render:
    """Return the prompts of a run; a base model sees five demonstrations before each question."""
    found = Prompts({one.prompts for one in components if one.prompts})
    if not chat:
        (home / "answer.txt").write_text(
            f"{SHOWN}Question: {{question}}\nAnswer:", encoding="utf-8"
        )
        found.replace("answer", home / "answer.txt")
    return partial(found.render, chat=chat)


def detectors(backend: Recorder) -> dict[str, Component]:
    """Return the built-in detectors that the backend can serve, by name."""
    offers = {offer.component.name: offer.component for kind, offer in load() if kind == "detector"}
    able = backend.describe().capabilities
    return {
        name: one
        for name, one in sorted(offers.items())
        if str(one.build.__module__).startswith("selfloop_plugins.") and one.needs <= able
    }


def table(
    claims: list[Claim],
    right: NDArray[np.bool_],
    backend: Recorder,
    folder: Path,
    render: Render,
    costly: int,
) -> Iterator[str]:
    """Yield one row for each built-in detector, and for each combination, its detectors' time
    included.
    """
    yield "| detector | AUROC | AURC | ECE | Brier | abstains | s / 1,000 |"
    yield "|---|---|---|---|---|---|---|"
    ours = detectors(backend)
    said = partial(verdicts, ours, backend, render)

    found: dict[str, list[Verdict]] = {}
    seconds: dict[str, float] = {}
    plain: dict[str, tuple[str, dict[str, Any]]] = {
        name: (name, {}) for name in (*DEFAULT, *ours) if name != "combined"
    }
    for label, (name, options) in (plain | VARIANTS).items():
        some = claims[:costly] if label in COSTLY else claims
        start = time.perf_counter()
        found[label] = said(name, some, folder, **options)
        seconds[label] = time.perf_counter() - start
        shown = f"{label} (first {len(some)})" if len(some) < len(claims) else label
        yield row(shown, found[label], right[: len(some)], seconds[label])
    for label, names in COMBINED.items():
        own = folder / label
        own.mkdir()
        told = zip(*(found[name] for name in names), strict=True)
        judged_claims = [
            replace(claim, verdicts=each) for claim, each in zip(claims, told, strict=True)
        ]
        start = time.perf_counter()
        weighed = said("combined", judged_claims, own, names)
        taken = time.perf_counter() - start + sum(seconds[name] for name in names)
        yield row(f"**{label}**", weighed, right, taken)


def verdicts(
    ours: Mapping[str, Component],
    backend: Recorder,
    render: Render,
    name: str,
    claims: list[Claim],
    home: Path,
    before: Sequence[str] = (),
    **own: Any,
) -> list[Verdict]:
    """Return what a detector says of claims; `before` are those whose verdicts the claims have."""
    again = lambda other: list(  # noqa: E731
        zip(*(verdicts(ours, backend, render, one, other, home) for one in before), strict=True)
    )
    build = ours[name].build
    options = {"folder": home} if "folder" in inspect.signature(build).parameters else {}
    found = build(**options, **own).verify(claims, VerifyContext(backend, render, again, 1))
    return [replace(verdict, detector=name) for verdict in found]


def row(name: str, verdicts: list[Verdict], right: NDArray[np.bool_], seconds: float) -> str:
    """Return a detector's line of the table."""
    given = np.array([v.confidence or 0.0 for v in verdicts])
    silent = np.mean([v.confidence is None for v in verdicts])
    cells = [
        UNTOLD if silent == 1 else shown(interval(partial(metric, given, right), len(right)))
        for metric in (metrics.auroc, metrics.aurc, metrics.ece, metrics.brier)
    ]
    return f"| {name} | {' | '.join(cells)} | {silent:.0%} | {1000 * seconds / len(verdicts):.2f} |"


def shown(found: Estimate) -> str:
    """Return a value with its interval."""
    if np.isnan(found.value):
        return UNTOLD
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()
