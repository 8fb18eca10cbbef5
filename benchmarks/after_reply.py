"""What do a chat model's states tell of its reply, before it and behind it? (E3)

    python benchmarks/after_reply.py DATA RUN MODEL --questions 200 --stored FOLDER

The questions of each set are asked bare in a user's turn. A reply is right if it holds a gold
answer; replies that decline are left out. Two readouts (plugins/tuners/lora/readout.py) are fitted
without labels on the RUN's own questions and the replies to them, as the tuner does: on the states
before each reply, and on those at its end, or at the end of its first sentence where it is longer
than the tuner's limit. AUROC is that of "the reply is right", with 95 % intervals by bootstrap;
`kept at half` is the share of the right replies that are kept where half of the wrong ones are
left. `kept` and `wrong left` are where the share --keep of the own right replies is kept.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from before_answering import BATCH, Floats, examples_of, kept_at_half, shares_given
from conversation import CONTAINS, SETS, chosen
from detectors import recorded, shown
from generate import cpu
from selfloop_plugins import models
from selfloop_plugins._torch.backend import Transformers
from selfloop_plugins._torch.model import allow_amx
from selfloop_plugins._torch.options import HfOptions
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.tuners.lora import readout
from selfloop_plugins.tuners.lora.conversation import (
    Turn,
    before_mark,
    replies,
    user_turn,
    write_turns,
)
from selfloop_plugins.tuners.lora.measures import bias_to_keep
from selfloop_plugins.tuners.lora.tokenized import Tokens
from selfloop_plugins.tuners.lora.training_examples import TrainingExample
from selfloop_plugins.tuners.lora.turn_decisions import prompt_and_token

from selfloop import Question
from selfloop.evaluation import metrics
from selfloop.evaluation.gold import judged
from selfloop.evaluation.metrics import interval
from selfloop.storage.recorder import Recorder
from selfloop.text.answers import declines

OWN = "own questions"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("model")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--private", type=Path, nargs="*", default=[], help="more sets")
    parser.add_argument("--questions", type=int, default=200, help="of each set")
    parser.add_argument("--keep", type=float, nargs="*", default=[0.8, 0.85, 0.9])
    parser.add_argument("--stored", type=Path, help="a folder that keeps what the model wrote")
    options = parser.parse_args()
    print(cpu(), flush=True)
    file = models.locate(options.model)
    files = [options.data / f"{name}.jsonl" for name in options.sets] + options.private
    sets = {path.stem: chosen(path, options.questions) for path in files}
    taught, held_out = examples_of(options.run)
    allow_amx()
    transformers = Transformers(HfOptions(model=str(file)))
    vocabulary, model = transformers.loaded.vocabulary, transformers.loaded.model
    backend = LlamaCpp(file)
    with recorded(backend, options.stored) as (recorder, _, _):
        own = write_turns(recorder, [*taught, *held_out])
        turns = {OWN: [turn for turn in own if turn.messages == user_turn(turn.example.question)]}
        turns |= {name: gold_turns(recorder, asked) for name, asked in sets.items()}
    backend.close()

    labels = dict[str, Floats]()
    before, behind = dict[str, list[Tokens]](), dict[str, list[Tokens]]()
    for name, some in turns.items():
        answers = [turn for turn in some if not declines(turn.reply.text)]
        ends = [before_mark(vocabulary, turn) for turn in answers]
        read = [(turn, end[0]) for turn, end in zip(answers, ends, strict=True) if end]
        before[name] = [prompt_and_token(vocabulary, turn.messages)[0] for turn, _ in read]
        behind[name] = [text for _, text in read]
        labels[name] = np.array([turn.p_correct for turn, _ in read])
    heads = [f"kept, wrong left at {keep:.2f}" for keep in options.keep]
    print("\n| read | set | n | right | AUROC | kept at half |", " | ".join(heads), "|")
    print(f"|{'---|' * (6 + len(heads))}", flush=True)
    for place, texts in (("before", before), ("behind", behind)):
        states = {
            name: readout.states_before_answer(model, some, BATCH) for name, some in texts.items()
        }
        by_own, own_by_others = readout.fit(states[OWN], labels[OWN].tolist())
        chances = {name: np.array(by_own(states[name])) for name in sets}
        rows(place, labels, chances | {OWN: np.array(own_by_others)}, options.keep)


def gold_turns(backend: Recorder, asked: list[Question]) -> list[Turn]:
    """Return questions in a user's turn with the base's replies, right (1) or wrong (0)."""
    prompts = [user_turn(question.text) for question in asked]
    turns = []
    for question, prompt, reply in zip(asked, prompts, replies(backend, prompts), strict=True):
        if reply is not None:
            right = float(bool(judged(question, reply.text, CONTAINS)))
            example = TrainingExample(question.text, "", right)
            turns.append(Turn(example, prompt, prompt, reply, right))
    return turns


def rows(
    place: str, labels: dict[str, Floats], chances: dict[str, Floats], keep: list[float]
) -> None:
    """Print a row for each set."""
    own = [-chance for chance in chances[OWN].tolist()]
    levels = [-bias_to_keep(own, labels[OWN].tolist(), share) for share in keep]
    for name, right in labels.items():
        scores = chances[name]
        auroc = shown(interval(partial(metrics.auroc, scores, right), len(right)))
        cells = [place, name, str(len(right)), f"{right.sum():.0f}", auroc]
        cells.append(f"{kept_at_half(scores, right):.2f}")
        for level in levels:
            cells.append("{:.2f}, {:.2f}".format(*shares_given(scores, right, level)))
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
