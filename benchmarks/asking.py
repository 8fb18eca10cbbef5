"""How long a model takes to ask itself N distinct questions that pass the filters, and what each
source gives.

    # 2,000 from gemma-3-270m in 5 rounds; both cores
    python benchmarks/asking.py
    python benchmarks/asking.py --n 200 --rounds 2 --threads 1

The recipe is below: all sources and filters that are installed, and answers as small as the
frontier needs them. Printed are tables per source and per round; `--csv` gets 100 random questions
that passed, to be labelled by hand.
"""

import argparse
import csv
import json
import random
import re
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from rapidfuzz import fuzz, process

from selfloop.records import Attempt, Round
from selfloop.registry.manager import load
from selfloop.runner import run
from selfloop.storage.store import rounds_of
from selfloop.text.answers import content, normalise

SOURCES = "topics:5,blank_slate:2,frontier:2,variants:1"
SCORERS = "well_formed:1,answerable:0.5,novelty:0.25,balance:0.1"
_CAPITAL = re.compile(r"(?<!^)\b[A-Z]\w+(?:[ -](?:of |the |de )?[A-Z]\w+)*")


def main() -> None:
    """Run the recipe in a folder of its own, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="gemma-3-270m")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sources", default=SOURCES, help="name:share,...")
    parser.add_argument("--scorers", default=SCORERS, help="name:minimum,...")
    parser.add_argument("--csv", type=Path, default=Path("asking.csv"))
    parser.add_argument("--runs", type=Path, help="keep the run in this folder")
    parser.add_argument("--of", type=Path, help="report on this finished run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "asking.yaml"
        path.write_text(json.dumps(recipe(options)), encoding="utf-8")  # JSON is YAML
        folder = options.of or run(path, runs=options.runs or Path(scratch) / "runs", quiet=True)
        rounds = rounds_of(folder)
        report(rounds, seconds(folder / "events.jsonl"), options.n)
        write_csv(rounds, options.csv, options.seed)


def recipe(options: argparse.Namespace) -> dict[str, Any]:
    """Return the recipe, of those of its components that are there."""
    return {
        "rounds": options.rounds,
        "seed": options.seed,
        "backend": {
            "kind": "llama_cpp",
            "model": options.model,
            "weights": "bf16",
            "threads": options.threads,
        },
        "ask": {
            "questions": -(-options.n // options.rounds),
            "max_turns": 12,
            "sources": [{"kind": k, "weight": v} for k, v in installed("source", options.sources)],
            "scorers": [
                {"kind": k, "min_score": v} for k, v in installed("scorer", options.scorers)
            ],
        },
        "answer": {"samples": options.samples, "max_tokens": 12},
        "critique": "none",
        "detectors": ["agreement"],
        "observers": ["jsonl", "diversity"],
    }


def installed(kind: str, wanted: str) -> list[tuple[str, float]]:
    """Return the wanted components that are there, with their numbers; name the others."""
    pairs = [
        (name, float(number))
        for name, _, number in (one.partition(":") for one in wanted.split(",") if one)
    ]
    known = {provided.component.name for of, provided in load() if of == kind}
    for name, _ in pairs:
        if name not in known:
            print(f"no {kind} {name}: left out")
    return [(name, number) for name, number in pairs if name in known]


def seconds(events: Path) -> dict[str, float]:
    """Return how long each step took in all, by the times of its events."""
    spent, last = defaultdict[str, float](float), ("", 0.0)
    for text in events.read_text(encoding="utf-8").splitlines():
        event = json.loads(text)
        now = datetime.fromisoformat(event["time"]).timestamp()
        if event["event"] in ("StepStarted", "RoundEnded", "RunEnded"):
            if last[0]:
                spent[last[0]] += now - last[1]
            last = (event.get("step", ""), now)
    return dict(spent)


def report(rounds: list[Round], spent: dict[str, float], wanted: int) -> None:
    """Print the tables."""
    passed = [a for ended in rounds for a in ended.attempts if a.decision != "dropped"]
    distinct = {normalise(a.question.text) for a in passed}
    steps = ", ".join(f"{step} {time:.0f}" for step, time in spent.items())
    print(
        f"\n{len(distinct)} distinct questions of {wanted} wanted. Seconds: {steps}; all "
        f"{sum(spent.values()):.0f}.\n"
    )
    print(
        "| source | written | passed | share | entities | agreement: mean | quartiles | none | "
        "all |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    groups = grouped((a.question.source, a) for ended in rounds for a in ended.attempts)
    for source, attempts in [*groups.items(), ("all", [a for own in groups.values() for a in own])]:
        print(source_row(source, attempts))
    print("\n| by what led to it | written | passed | share |\n|---|---|---|---|")
    framed = [a for source, own in groups.items() if source != "topics" for a in own]
    vias = grouped(
        (f"{a.question.source}: {a.question.variant or a.question.via}", a) for a in framed
    )
    for via, attempts in sorted(vias.items()):
        good = sum(a.decision != "dropped" for a in attempts)
        print(f"| {via} | {len(attempts)} | {good} | {good / len(attempts):.2f} |")
    print_rounds(rounds)


def grouped(pairs: Iterable[tuple[str, Attempt]]) -> dict[str, list[Attempt]]:
    """Return the attempts by name."""
    found = defaultdict[str, list[Attempt]](list)
    for name, attempt in pairs:
        found[name].append(attempt)
    return dict(found)


def source_row(source: str, attempts: list[Attempt]) -> str:
    """Return the row of one source."""
    good = [a for a in attempts if a.decision != "dropped"]
    named = {entity.lower() for a in good for entity in entities(a)}
    agreement = [c for a in good if (c := a.confidences("draft").get("agreement")) is not None]
    spread = "- | - | - | -"
    if len(agreement) > 1:
        quartiles = " ".join(f"{q:.2f}" for q in statistics.quantiles(agreement, n=4))
        none, every = (
            sum(test) / len(agreement)
            for test in ([c <= 0 for c in agreement], [c >= 1 for c in agreement])
        )
        spread = f"{statistics.fmean(agreement):.2f} | {quartiles} | {none:.2f} | {every:.2f}"
    share = len(good) / len(attempts) if attempts else 0
    return f"| {source} | {len(attempts)} | {len(good)} | {share:.2f} | {len(named)} | {spread} |"


def entities(attempt: Attempt) -> set[str]:
    """Return what a question names: what it was asked about, or its capitalised words after the
    first.
    """
    question = attempt.question
    return {question.via} if question.source == "topics" else set(_CAPITAL.findall(question.text))


def print_rounds(rounds: list[Round]) -> None:
    """Print what each round asked that is new, how much of it is like something before, and why
    others were dropped.
    """
    print(
        "\n| round | asked | new distinct | near-duplicates | dropped for |\n|---|---|---|---|---|"
    )
    before, seen = list[str](), set[str]()
    for ended in rounds:
        asked = [a.question.text for a in ended.attempts if a.decision != "dropped"]
        new = {normalise(text) for text in asked} - seen
        texts = [normalise(text) for text in asked]
        near = near_duplicates(texts, before)
        why = Counter(reason(a) for a in ended.attempts if a.decision == "dropped")
        reasons = ", ".join(f"{name} {count}" for name, count in why.most_common(8))
        share = near / len(asked) if asked else 0
        print(f"| {ended.number} | {len(asked)} | {len(new)} | {near} ({share:.1%}) | {reasons} |")
        seen |= new
        before += texts
    for ended in rounds:
        for failure in ended.failures:
            print(f"round {ended.number}: {failure.component}: {failure.type}: {failure.message}")


def near_duplicates(texts: list[str], before: list[str]) -> int:
    """Return how many texts are like one before them, in this round or earlier, by another measure
    than the filter's.

    They have the same content words, or nearly the same letters when their words are sorted. At 90
    of 100 in place of 95 most of the pairs were questions about two things ("legs of a spider",
    "legs of a tiger").
    """
    known = [*before, *texts]
    if not texts:
        return 0
    likeness = process.cdist(texts, known, scorer=fuzz.token_sort_ratio, score_cutoff=95)
    words = [frozenset(content(text)) for text in known]
    first = {key: place for place, key in reversed(list(enumerate(words)))}
    places = range(len(before), len(known))
    return sum(
        bool(row[:place].any()) or first[words[place]] < place
        for place, row in zip(places, likeness, strict=True)
    )


def reason(attempt: Attempt) -> str:
    """Return why a question was dropped, without what differs from one to the next."""
    return re.sub(r"\s*(\(.*\)|'.*'|\".*\"|like .*|\d\S*)\s*", " ", attempt.reason).strip()[:60]


def write_csv(rounds: list[Round], path: Path, seed: int) -> None:
    """Write 100 random questions that passed, with an empty column for the label."""
    passed = [a.question for ended in rounds for a in ended.attempts if a.decision != "dropped"]
    chosen = random.Random(seed).sample(passed, min(100, len(passed)))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "source", "via", "label"])
        writer.writerows([question.text, question.source, question.via, ""] for question in chosen)
    print(f"\n{len(chosen)} questions to label are in {path}")


if __name__ == "__main__":
    main()
