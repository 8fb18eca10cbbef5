"""What do a base's states tell before an answer, and how much of it do its adapters use? (E4)

    python benchmarks/before_answering.py DATA RUN MODEL --private trivia.jsonl --limit 250
    python benchmarks/before_answering.py DATA RUN MODEL --adapter FOLDER ...
    python benchmarks/before_answering.py DATA RUN MODEL --solve

Each set is asked behind five fixed demonstrations, greedily: right or wrong is what the base says
there. Then each question is read bare, a chat model's in a user turn, and no answer is written.
AUROC for "the base is right", with 95 % intervals by bootstrap, of three readouts of the states
(plugins/tuners/lora/readout.py): one fitted without labels on the RUN's own questions, as the tuner
does, one fitted on the labels of all other sets, and one on those of four fifths of the set itself:
the most that a line can tell. `kept` is the share of the right answers that the first one keeps
where half of the wrong ones are left. `at the level` are the shares of the right and of the wrong
answers that it keeps where the tuner's default share of the run's own right answers is kept, so how
far the level of own questions fits those of others. The rows `taught` and `held out` are the run's
own questions, for their chances in place of right and wrong, which no readout can reach beyond
`chances`. An adapter's column is by how many nats declining is ahead in a chat turn; its FOLDER
holds adapter_model.safetensors. `r` is the correlation of that with the log-odds of the run's own
readout, which the adapter was taught.

With `--solve`, when to decline is solved here for a chat model that learns nothing else
(plugins/tuners/lora/rank_one.py), with the level of the tuner's default. `declined` are the shares
of right and of wrong answers that this model declines.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from deciding import answers
from detectors import questions, recorded, shown
from generate import cpu
from honesty import BARE, FORMS, SHOWING
from numpy.typing import NDArray
from selfloop_plugins import models
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._torch.backend import Transformers
from selfloop_plugins._torch.model import allow_amx
from selfloop_plugins._torch.options import HfOptions
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.tuners.lora import readout
from selfloop_plugins.tuners.lora.conversation import request_turns, user_turn, write_turns
from selfloop_plugins.tuners.lora.losses import kl_references, kl_to_base, neutral_positions
from selfloop_plugins.tuners.lora.measures import bias_to_keep, decline_excess, declining_at
from selfloop_plugins.tuners.lora.rank_one import Still, TurnDecision, solve
from selfloop_plugins.tuners.lora.settings import LoraSettings
from selfloop_plugins.tuners.lora.tokenized import Decision, Place, TokenizedExample, Tokens
from selfloop_plugins.tuners.lora.training_examples import TrainingExample, training_examples
from selfloop_plugins.tuners.lora.tuner import GATE_TEXTS, neutral_texts, wrap
from selfloop_plugins.tuners.lora.turn_decisions import (
    prompt_and_token,
    rewordings,
    still_texts,
    turn_decisions,
)
from single_pass import prompts_of

from selfloop import Question
from selfloop.config.prompts import Prompts
from selfloop.evaluation import metrics
from selfloop.evaluation.gold import judged
from selfloop.evaluation.metrics import interval
from selfloop.storage.store import Store

Floats = NDArray[np.float64]
SETS = ("easy_facts", "curatedtrec", "popqa", "webquestions", "nq_open")
TAUGHT, HELD_OUT = "taught", "held out"
SOLVED = "solved"
READOUTS = BY_OWN, BY_OTHERS, BY_ITSELF = "own questions", "other sets", "the set itself"
BATCH = 16
SEED = 1


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("model")
    parser.add_argument("--adapter", type=Path, nargs="*", default=[], help="folders")
    parser.add_argument("--solve", action="store_true", help="of a chat model")
    parser.add_argument("--private", type=Path, nargs="*", default=[], help="more sets")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--limit", type=int, help="questions of each set")
    parser.add_argument("--stored", type=Path, help="a folder that keeps what the model wrote")
    options = parser.parse_args()
    print(cpu(), flush=True)
    file = models.locate(options.model)
    files = [options.data / f"{name}.jsonl" for name in options.sets] + options.private
    sets = {path.stem: questions(path)[: options.limit] for path in files}
    taught, held_out = examples_of(options.run)
    own = [*taught, *held_out]
    chances = np.array([example.p_correct for example in own])
    allow_amx()
    transformers = Transformers(HfOptions(model=str(file)))
    backend = LlamaCpp(file)
    material = None
    with recorded(backend, options.stored) as (recorder, _, _):
        right = {name: rights(recorder, asked) for name, asked in sets.items()}
        if options.solve:
            material = material_of(transformers, recorder, taught)
    backend.close()

    asked_bare = {name: [q.text for q in asked] for name, asked in sets.items()}
    asked_bare[TAUGHT] = [example.question for example in taught]
    asked_bare[HELD_OUT] = [example.question for example in held_out]
    places = {name: bare_places(transformers, texts) for name, texts in asked_bare.items()}
    labels = right | {TAUGHT: chances[: len(taught)], HELD_OUT: chances[len(taught) :]}
    states = {
        name: readout.states_before_answer(
            transformers.loaded.model, [place.text for place in some], BATCH
        )
        for name, some in places.items()
    }
    columns = readouts(states, right, chances)

    def margins(adapted: Any) -> dict[str, Floats]:
        return {
            name: np.array([-one.margin for one in declining_at(adapted, some, BATCH)])
            for name, some in places.items()
        }

    for folder in options.adapter:
        adapted = peft.PeftModel.from_pretrained(transformers.loaded.model, str(folder))
        columns[str(folder)] = margins(adapted)
        adapted.unload()
    if material is not None:
        columns[SOLVED] = margins(solved(transformers.loaded.model, *material))
    table(labels, columns, float(metrics.auroc(chances, chances, np.ones(len(chances)))))


def examples_of(run: Path) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Return the questions of a run that a tuner teaches, and those that it holds out."""
    with closing(Store(run, write=False)) as store:
        history = store.history()
    return training_examples(history, decline_share=None, match_form=True, seed=SEED)


def readouts(
    states: dict[str, torch.Tensor], right: dict[str, Floats], chances: Floats
) -> dict[str, dict[str, Floats]]:
    """Return the chances that each of the readouts gives to the questions of each set."""
    columns: dict[str, dict[str, Floats]] = {name: {} for name in READOUTS}
    own = torch.cat([states[TAUGHT], states[HELD_OUT]])
    by_own, own_by_others = readout.fit(own, chances.tolist())
    for name in right:
        columns[BY_OWN][name] = np.array(by_own(states[name]))
        others = [other for other in right if other != name]
        by_rest, _ = readout.fit(
            torch.cat([states[other] for other in others]),
            np.concatenate([right[other] for other in others]).tolist(),
        )
        columns[BY_OTHERS][name] = np.array(by_rest(states[name]))
        _, by_others = readout.fit(states[name], right[name].tolist())
        columns[BY_ITSELF][name] = np.array(by_others)
    num_taught = len(states[TAUGHT])
    columns[BY_OWN][TAUGHT] = np.array(own_by_others[:num_taught])
    columns[BY_OWN][HELD_OUT] = np.array(own_by_others[num_taught:])
    return columns


def material_of(
    transformers: Transformers, backend: Any, taught: Sequence[TrainingExample]
) -> tuple[list[TurnDecision], tuple[list[Still], list[Still]], list[Tokens]]:
    """Return what the tuner solves with, without the quiz form and the replies; and neutral texts
    that are not among it."""
    vocabulary, model = transformers.loaded.vocabulary, transformers.loaded.model
    prompt = partial(Prompts([PROMPTS]).render, chat=True)
    reworded = rewordings(backend, taught, prompt, SEED)
    turns, requests = write_turns(backend, taught), request_turns(backend)
    texts = neutral_texts(backend, vocabulary, SEED)
    still = still_texts(vocabulary, requests, [], [], texts[GATE_TEXTS:], SEED)
    decisions = turn_decisions(model, vocabulary, turns, reworded, BATCH)
    return decisions, still, texts[:GATE_TEXTS]


def solved(
    model: Any,
    decisions: Sequence[TurnDecision],
    still: Sequence[Sequence[Still]],
    neutral: Sequence[Tokens],
) -> Any:
    """Return the model with an adapter by which it declines, and learns nothing else."""
    settings = LoraSettings()
    adapted = wrap(model, settings.rank, SEED, edited=True)
    excess = partial(decline_excess, keep=settings.kept_by_each, price=settings.price)
    started = time.monotonic()
    solve(adapted, decisions, still, excess, BATCH)
    texts = [(text, neutral_positions(text)) for text in neutral]
    divergence = float(kl_to_base(adapted, kl_references(adapted, texts)).detach())
    print(
        f"{len(decisions)} decisions solved in {time.monotonic() - started:.0f} s; KL to the base "
        f"on neutral text {divergence:.4f} nats",
        flush=True,
    )
    return adapted


def rights(backend: Any, asked: Sequence[Question]) -> Floats:
    """Return 1 for each question that the base answers rightly, else 0."""
    given = answers(backend, prompts_of(asked, SHOWING))
    return np.array([judged(q, one.text) for q, one in zip(asked, given, strict=True)], float)


def bare_places(backend: Transformers, asked: Sequence[str]) -> list[Place]:
    """Return where the model would decline, asked bare."""
    is_chat = backend.describe().chat
    places = []
    for question in asked:
        asked_bare = user_turn(question) if is_chat else FORMS[BARE].replace("{}", question)
        prompt, token = prompt_and_token(backend.loaded.vocabulary, asked_bare)
        decision = Decision(0, token, "bare")
        example = TokenizedExample((*prompt, token), len(prompt), decisions=(decision,))
        places.append(Place(example, decision))
    return places


def table(labels: dict[str, Floats], columns: dict[str, dict[str, Floats]], chances: float) -> None:
    """Print a row for each set."""
    heads = [*columns, "kept at half of the wrong left", "at the level"]
    print(f"\n| set | n | right | {' | '.join(heads)} |")
    print(f"|---|{'---|' * (len(heads) + 2)}")
    level = own_level(columns[BY_OWN], labels)
    for name, right in labels.items():
        cells = []
        for column, scores in columns.items():
            if name not in scores:
                cells.append("")
                continue
            auroc = partial(metrics.auroc, scores[name], right)
            cell = shown(interval(auroc, len(right)))
            if column not in READOUTS:
                taught = log_odds(columns[BY_OWN][name])
                cell += f", r {np.corrcoef(scores[name], taught)[0, 1]:.2f}"
            if column == SOLVED:
                declines = scores[name] < 0
                of_right = np.average(declines, weights=right)
                of_wrong = np.average(declines, weights=1 - right)
                cell += f", declined {of_right:.2f} {of_wrong:.2f}"
            cells.append(cell)
        by_own = columns[BY_OWN][name]
        cells.append(f"{kept_at_half(by_own, right):.2f}")
        cells.append("kept {:.2f}, wrong left {:.2f}".format(*shares_given(by_own, right, level)))
        print(f"| {name} | {len(right)} | {right.sum():.0f} | {' | '.join(cells)} |")
    print(f"\nThe level: answers of a chance of {level:.3f} and more are given.")
    print(f"AUROC of the chances themselves on the run's own questions: {chances:.3f}")


def own_level(by_own: dict[str, Floats], labels: dict[str, Floats]) -> float:
    """Return the chance from which on an answer is given, so that the tuner's default share of the
    own right answers is kept."""
    own = (TAUGHT, HELD_OUT)
    chances = np.concatenate([by_own[name] for name in own]).tolist()
    p_correct = np.concatenate([labels[name] for name in own]).tolist()
    return -bias_to_keep([-chance for chance in chances], p_correct, LoraSettings().kept_by_each)


def shares_given(scores: Floats, right: Floats, level: float) -> tuple[float, float]:
    """Return the shares of the right and of the wrong answers that score at the level or above."""
    given = scores >= level
    of_right, of_wrong = np.average(given, weights=right), np.average(given, weights=1 - right)
    return float(of_right), float(of_wrong)


def log_odds(chances: Floats) -> Floats:
    """Return the natural logarithm of the odds of each chance."""
    return np.asarray(np.log(chances / (1 - chances)))


def kept_at_half(scores: Floats, right: Floats) -> float:
    """Return the share of the right answers that are kept where half of the wrong ones are left."""
    order = np.argsort(-scores, kind="stable")
    wrong_left = np.cumsum(1 - right[order]) / (1 - right).sum()
    kept = np.cumsum(right[order]) / right.sum()
    return float(kept[wrong_left <= 0.5].max(initial=0.0))


if __name__ == "__main__":
    main()
