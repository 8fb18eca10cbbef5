"""How well one generation a question tells right answers from wrong ones: the check after the
answer.

    python benchmarks/single_pass.py DATA RUN [RUN ...] --private trivia.jsonl

Each question is answered greedily, once, behind five fixed examples. The arms are confidences in
that answer. `flag` and `flag, bare` are read by the tuned model before any answer, behind the
examples and at the bare question. `answer` is the probability that the base gave its answer,
`first token` that of its beginning. `flag + answer` is a logistic regression of both, fitted on the
run's own questions that were not trained on, against the confidence that the detectors had in these
from eight samples. No gold answer is read for it. `tuned answers` is the same about the answer that
the tuned model gives. `eight samples` are the combined detectors.

AUROC is for "the answer is right". `kept` is the largest share of the right answers that can be
kept where at most half of the wrong ones are left, by any threshold. The score at price t counts a
right answer as 1 and a wrong one as -t / (1 - t), at the threshold t; beside it are the scores of
always answering and of never answering. Gold answers are for these tables only.

With `--expected` each set has a second table. There a question counts as right by a share: that of
right answers among a greedy one and four samples, behind each of four orders of the examples
(SliCK, Gekhman et al. 2024, arXiv 2405.05904). So a small model has more to tell apart than the few
questions that it answers rightly at the first try.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from detectors import questions, recorded, shown
from generate import DEMONSTRATIONS, cpu
from honesty import BARE, FORMS, SETS, SHOWING, TOKENS, Lent, sure, tuned
from numpy.typing import NDArray
from selfloop_plugins import models
from selfloop_plugins._shared.calibration import Calibration, Confidences, fit, log_odds
from selfloop_plugins._shared.calibration import sigmoid as calibrated_sigmoid
from selfloop_plugins._shared.held_out import is_held_out
from selfloop_plugins._shared.probability import sigmoid
from selfloop_plugins._shared.prompt_text import decline_continuation
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.backends.llama_cpp.weights import converted_weights
from selfloop_plugins.detectors.flag import WITHOUT_DECLINING

from selfloop import Question
from selfloop.evaluation import metrics
from selfloop.evaluation.gold import Match, judged, match_named
from selfloop.evaluation.metrics import interval
from selfloop.records import Attempt, Completion, Request, Sampling
from selfloop.storage.store import Store
from selfloop.text.answers import normalise

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
PRICES = (0.2, 0.5, 0.75)
HALF = 0.5  # of the wrong answers
ENOUGH = 40  # right answers, below which shares of them say little
KNOWLEDGE_ORDERS = 4  # of the examples, in which it is asked whether the base knows
KNOWLEDGE_SAMPLES = 4  # in each, besides a greedy answer
ANSWERING = Sampling(max_tokens=TOKENS, stop=("\n",), decline_bias=WITHOUT_DECLINING)


@dataclass(frozen=True)
class Answers:
    """Greedy answers, and the log-probabilities of each whole answer and of its first token."""

    texts: list[str]
    logprobs: Floats
    first: Floats


def main() -> None:
    """Print a table for each set, and one of the fits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--stored", type=Path, help="a folder that keeps what the model wrote")
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--private", type=Path, nargs="*", default=[], help="more sets")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--limit", type=int, help="questions of each set")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--match", default="exact")
    parser.add_argument("--expected", action="store_true", help="also by expected correctness")
    options = parser.parse_args()
    match = match_named(options.match)
    print(f"{cpu()}; right by {match.name}: {match.says}", flush=True)
    files = [options.data / f"{name}.jsonl" for name in options.sets] + options.private
    sets = {path.stem: questions(path)[: options.limit] for path in files}
    file = converted_weights(models.locate(options.model), "bf16").path
    backend = LlamaCpp(file, threads=options.threads)
    with recorded(backend, options.stored) as (recorder, folder, render):
        lent = Lent(recorder, folder, render, match)
        base = {name: answer(recorder, prompts_of(asked, SHOWING)) for name, asked in sets.items()}
        samples = {name: sure(lent, asked) for name, asked in sets.items()}
        known = {
            name: expected(recorder, asked, match)
            for name, asked in sets.items()
            if options.expected
        }
        for run in options.runs:
            print(f"\n# {run.name}", flush=True)
            confidences = measured(recorder, run, sets, base)
            for name, asked in sets.items():
                right = correct(asked, base[name].texts, match)
                tuned_right = correct(asked, confidences[name].tuned_texts, match)
                arms = {**confidences[name].arms, "eight samples": samples[name]}
                print("\n".join(table(name, arms, right, tuned_right)), flush=True)
                if name in known:
                    shares = known[name]
                    print("\n".join(table(f"{name}, expected", arms, shares, shares)), flush=True)
    backend.close()


@dataclass(frozen=True)
class Measured:
    """The confidences of the arms in the answers to one set, and what the tuned model answers."""

    arms: dict[str, Floats]
    tuned_texts: list[str]


def measured(
    recorder: Any, run: Path, sets: dict[str, list[Question]], base: dict[str, Answers]
) -> dict[str, Measured]:
    """Return the confidences that the adapter of a run gives, by set."""
    recorder.load_adapter(tuned(run))
    held_out = held_out_attempts(run)
    own = [attempt.question for attempt in held_out]
    target = [attempt.confidence or 0.0 for attempt in held_out]
    drafts = [cast(Completion, attempt.draft) for attempt in held_out]
    own_logprobs = np.array([sum(draft.logprobs) for draft in drafts])
    fits: dict[str, Calibration] = {}
    for form in FORMS:
        flags = flag(recorder, prompts_of(own, form))
        fits[form] = single_pass(flags, own_logprobs, target, len(own))
    own_tuned = answer(recorder, prompts_of(own, SHOWING))
    shares = [agreement(a, text) for a, text in zip(held_out, own_tuned.texts, strict=True)]
    flags = flag(recorder, prompts_of(own, SHOWING))
    fits["tuned answers"] = single_pass(flags, own_tuned.logprobs, shares, len(own))
    print("\n| fit on own questions | weights of flag, answer | AUROC of flag, answer, both |")
    print("|---|---|---|")
    believed = np.array(target) >= HALF
    for form, calibration in fits.items():
        weights = ", ".join(f"{weight:.2f}" for weight in calibration.weights)
        print(
            f"| {form}: {calibration.fitted} | {weights} |"
            f" {own_quality(recorder, own, own_logprobs, believed, calibration, form)} |",
            flush=True,
        )
    by_set = {}
    for name, asked in sets.items():
        by_form = {form: flag(recorder, prompts_of(asked, form)) for form in FORMS}
        tuned_answers = answer(recorder, prompts_of(asked, SHOWING))
        logprobs = base[name].logprobs
        arms = {
            "flag": by_form[SHOWING],
            "flag, bare": by_form[BARE],
            "first token": np.exp(base[name].first),
            "answer": np.exp(logprobs),
            "sum of log-odds": odds_sum(by_form[SHOWING], np.exp(logprobs)),
            "flag + answer": judge(fits[SHOWING], by_form[SHOWING], logprobs),
            "flag + answer, bare": judge(fits[BARE], by_form[BARE], logprobs),
            "tuned answers": judge(fits["tuned answers"], by_form[SHOWING], tuned_answers.logprobs),
        }
        by_set[name] = Measured(arms, tuned_answers.texts)
    recorder.load_adapter(None)
    return by_set


def own_quality(
    recorder: Any,
    own: list[Question],
    logprobs: Floats,
    believed: Bools,
    calibration: Calibration,
    form: str,
) -> str:
    """Return the AUROCs for "the detectors believe it" on the run's own questions."""
    flags = flag(recorder, prompts_of(own, form if form in FORMS else SHOWING))
    arms = (flags, np.exp(logprobs), judge(calibration, flags, logprobs))
    return ", ".join(f"{point(metrics.auroc, arm, believed):.3f}" for arm in arms)


def held_out_attempts(run: Path) -> list[Attempt]:
    """Return the run's answers to its own questions that no tune was trained on."""
    with closing(Store(run, write=False)) as store:
        attempts = [attempt for ended in store.rounds() for attempt in ended.attempts]
    by_question = {}
    for attempt in attempts:
        if is_held_out(attempt.question) and attempt.draft and attempt.confidence is not None:
            by_question[attempt.question.text] = attempt
    return list(by_question.values())


def agreement(attempt: Attempt, text: str) -> float:
    """Return the share of an attempt's samples that say the same as a text."""
    same = [normalise(sample.text) == normalise(text) for sample in attempt.samples]
    return sum(same) / len(same)


def prompts_of(asked: Sequence[Question], form: str) -> list[str]:
    """Return the prompts of questions in one of the forms."""
    return [FORMS[form].replace("{}", question.text) for question in asked]


def answer(backend: Any, prompts: Sequence[str]) -> Answers:
    """Return the greedy answer to each prompt, declining forbidden."""
    requests = [Request(prompt, ANSWERING, open_turn=True) for prompt in prompts]
    completions = dict(backend.generate(requests))
    answers = [completions[i] for i in range(len(prompts))]
    return Answers(
        [one.text.strip() for one in answers],
        np.array([min(0.0, sum(one.logprobs)) for one in answers]),
        np.array([one.logprobs[0] for one in answers]),
    )


def expected(backend: Any, asked: Sequence[Question], match: Match) -> Floats:
    """Return how much of each question the base knows: the share of its answers that are right."""
    requests = list[Request]()
    drawn = replace(ANSWERING, temperature=1.0)
    for order in range(KNOWLEDGE_ORDERS):
        examples = [*DEMONSTRATIONS[order:], *DEMONSTRATIONS[:order]]
        shown = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in examples)
        prompts = [f"{shown}Question: {question.text}\nAnswer:" for question in asked]
        requests += [Request(one, ANSWERING, open_turn=True) for one in prompts]
        requests += [
            Request(one, drawn, n=KNOWLEDGE_SAMPLES, seed=seed, open_turn=True)
            for seed, one in enumerate(prompts)
        ]
    times_right = np.zeros(len(asked))
    for index, completion in backend.generate(requests):
        place = index % len(asked)
        times_right[place] += bool(judged(asked[place], completion.text.strip(), match))
    return times_right / (KNOWLEDGE_ORDERS * (KNOWLEDGE_SAMPLES + 1))


def flag(backend: Any, prompts: Sequence[str]) -> Floats:
    """Return a / (a + d), as the detector `flag` has it."""
    sampling = replace(ANSWERING, max_tokens=1)
    begun = dict(backend.generate([Request(one, sampling, open_turn=True) for one in prompts]))
    read = backend.loglikelihood([decline_continuation(one, open_turn=True) for one in prompts])
    return np.array([sigmoid(begun[i].logprobs[0] - read[i][0]) for i in range(len(prompts))])


def features(flags: Floats, logprobs: Floats) -> list[Confidences]:
    """Return both confidences of each answer, by name."""
    pairs = zip(flags.tolist(), np.exp(logprobs).tolist(), strict=True)
    return [{"flag": one, "sequence_probability": other} for one, other in pairs]


def single_pass(
    flags: Floats, logprobs: Floats, target: Sequence[float], count: int
) -> Calibration:
    """Return the fit of both confidences against a target."""
    names = ("flag", "sequence_probability")
    return fit(names, features(flags, logprobs), target, f"{count} answers")


def judge(calibration: Calibration, flags: Floats, logprobs: Floats) -> Floats:
    """Return the fitted confidence in each answer."""
    return calibration(features(flags, logprobs))


def odds_sum(*confidences: Floats) -> Floats:
    """Return the confidence whose log-odds are the sum of those of others: no weight is fitted."""
    by_arm = [
        {str(i): float(c) for i, c in enumerate(row)} for row in zip(*confidences, strict=True)
    ]
    names = [str(i) for i in range(len(confidences))]
    return np.array([float(v) for v in calibrated_sigmoid(log_odds(by_arm, names).sum(1))])


def correct(asked: Sequence[Question], texts: Sequence[str], match: Match) -> Bools:
    """Return which answers are right."""
    return np.array([bool(judged(q, text, match)) for q, text in zip(asked, texts, strict=True)])


def point(metric: Any, confidence: Floats, right: Bools | Floats) -> float:
    """Return a metric without its interval."""
    return float(metric(confidence, right, np.ones((1, len(right))))[0])


def table(
    name: str,
    arms: dict[str, Floats],
    right: Bools | Floats,
    tuned_right: Bools | Floats,
) -> Iterator[str]:
    """Yield the rows of one set; `tuned_right` says which answers of the tuned model are right, or
    by which share."""
    count = right.sum()
    few = ", too few" if count < ENOUGH else ""
    yield f"\n**{name}**: {len(right)} questions, {count:.0f} right{few}\n"
    scores = " | ".join(f"t = {price}" for price in PRICES)
    yield f"| confidence | AUROC | ECE | kept | {scores} |"
    yield f"|---|---|---|---|{'---|' * len(PRICES)}"
    for label, confidence in arms.items():
        is_right = tuned_right if label == "tuned answers" else right
        auroc = shown(interval(partial(metrics.auroc, confidence, is_right), len(right)))
        ece = point(metrics.ece, confidence, is_right)
        kept = kept_at_half(confidence, is_right, right)
        cells = [f"{score(is_right, confidence >= price, price):+.3f}" for price in PRICES]
        yield f"| {label} | {auroc} | {ece:.3f} | {kept:.2f} | {' | '.join(cells)} |"
    always = [f"{score(right, np.ones(len(right), bool), price):+.3f}" for price in PRICES]
    yield f"| always answer | | | | {' | '.join(always)} |"
    yield f"| never answer | | | | {' | '.join(['+0.000'] * len(PRICES))} |"


def kept_at_half(confidence: Floats, right: Bools | Floats, before: Bools | Floats) -> float:
    """Return the largest share of the right answers `before` that is kept where at most half of the
    wrong ones is left."""
    still_right = np.minimum(right, before)
    wrong = 1.0 - right
    best = 0.0
    for threshold in np.unique(confidence):
        given = confidence >= threshold
        left = (given * wrong).sum() / max((1.0 - before).sum(), 1)
        if left <= HALF:
            best = max(best, float((given * still_right).sum() / max(before.sum(), 1)))
    return best


def score(right: Bools | Floats, given: Bools, price: float) -> float:
    """Return the mean score of answers where a wrong one costs price / (1 - price)."""
    cost = price / (1 - price)
    return float((right * given).mean() - cost * ((1.0 - right) * given).mean())


if __name__ == "__main__":
    main()
