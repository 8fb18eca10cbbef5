"""Trains a tiny model several times over: alone, or as one process of a launch.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python launched.py MODEL FOLDER

The first process writes `FOLDER/seen.json`, with the losses of each step and the reason why the
training of a model that is nowhere ended.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from selfloop_plugins._torch.backend import Transformers
from selfloop_plugins._torch.options import HfOptions
from selfloop_plugins.tuners.lora import launch, worker
from selfloop_plugins.tuners.lora.conversation import Exchange
from selfloop_plugins.tuners.lora.launch import Job
from selfloop_plugins.tuners.lora.settings import LoraSettings
from selfloop_plugins.tuners.lora.tokenized import (
    AFTER_QUIZ,
    BEFORE_QUIZ,
    Decision,
    TokenizedExample,
)
from selfloop_plugins.tuners.lora.training import TrainingData, train
from selfloop_plugins.tuners.lora.tuner import wrap

from selfloop.errors import ModelError

# at this rate the held-out loss falls in all three epochs
SETTINGS = LoraSettings(epochs=3, batch=8, rate=1e-2, rank=2, kl=0.5, decide="both", threads=1)


def example(number: int) -> TokenizedExample:
    """Return one of examples that use all that is learnt: tokens, the base's, and declining."""
    prompt = (5 + number % 40, 7)
    answer = (3 + number % 5, 11, 2)[: 2 + number % 2]
    return TokenizedExample(
        (*prompt, *answer),
        2,
        p_correct=number % 10 / 10,
        teacher_prompt=(31, 5 + number % 3),
        num_distilled=len(answer),
        only_likeliest=number % 2 == 0,
        decisions=(
            Decision(0, 14, AFTER_QUIZ if number % 3 else BEFORE_QUIZ),
            Decision(1, 15, AFTER_QUIZ),
        ),
    )


def training_data() -> TrainingData:
    examples = [example(number) for number in range(44)]
    # alone in its batch for its length, so that one of two processes has no share of that batch
    examples.append(TokenizedExample(tuple(range(20, 60)), 30))
    texts = [tuple((i * j) % 50 + 3 for j in range(1, 30)) for i in range(1, 6)]
    return TrainingData(examples, examples[::2], texts, [Exchange(texts[0], 5)], seed=3)


def trained(model: str, folder: Path) -> tuple[list[float], dict[str, torch.Tensor], list[Any]]:
    """Train; return the loss of each step, the weights, and the results of the epochs."""
    loaded = Transformers(HfOptions(model=model, dtype="float32", device="cpu", threads=1)).loaded
    data = training_data()
    wrapped = wrap(loaded.model, SETTINGS.rank, data.seed, edited=True)
    losses = list[float]()
    with launch.training(Job(model, "float32", SETTINGS, data, edited=True)) as processes:
        epochs = train(
            wrapped,
            data,
            SETTINGS,
            folder,
            lambda result: None,
            lambda step, steps, loss: losses.append(loss),
            processes,
        )
    weights = {name: p.detach() for name, p in wrapped.named_parameters() if p.requires_grad}
    return losses, weights, epochs


def main(model: str, folder: Path) -> int:
    exit_code = worker.join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if exit_code is not None:
        return exit_code
    reason = ""
    nowhere = Job(str(folder / "nowhere"), "float32", SETTINGS, training_data())
    try:
        with launch.training(nowhere) as processes:
            processes.from_first("the other one fails before this reaches it")
    except ModelError as error:
        reason = str(error)
    seen: dict[str, Any] = {"reason": reason}
    for name in ("whole", "cut"):
        losses, weights, _ = trained(model, folder / name)
        torch.save(weights, folder / f"{name}.pt")
        seen[name] = losses
    (folder / "seen.json").write_text(json.dumps(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
