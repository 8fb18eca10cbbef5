"""`Lora`: lessons, training and gate as one `selfloop.protocols.Tuner`."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import peft
import torch

from selfloop import Request, Sampling, Tuning
from selfloop.errors import ModelError
from selfloop.prompts import is_open
from selfloop.records import Adapter, Completion, Continuation

from .. import models
from ..decoding.prompting import split
from ..decoding.sampling import Sampler
from ..decoding.tasks import Job, Vocabulary, Writing
from ..hf.adapter import WEIGHTS, refuse_other, write_gguf
from ..hf.checkpoint import locate, quiet
from ..hf.engine import Engine
from ..hf.model import Loaded
from .gate import Gate, asked_in, measure
from .lessons import Lesson, lessons
from .training import Example, Progress, Settings, train

PROMPTS = ("tune_bare", "answer")  # a question by itself, and as the loop asks it
OPENINGS = (
    "The", "In the", "It was", "A small", "When", "After the", "Most people", "My", "She", "One of the", "There are",
    "During", "As a", "He", "For many years", "This",
)  # fmt: skip
TEXTS, LENGTH = 48, 64  # neutral texts, of which a quarter is for the gate alone, and their tokens
ROWS = 16

_log = logging.getLogger("selfloop.tune")


class Lora:
    """Trains an adapter of the model that the backend runs, anew each time, on all that the run holds.

    Arguments are those of the recipe; see `build`.
    """

    def __init__(
        self,
        *,
        declined: float,
        match: bool,
        decline: str,
        rank: int,
        rate: float,
        epochs: int,
        batch: int,
        kl: float,
        perplexity: float,
        threads: int | None,
    ) -> None:
        self._declined, self._match, self._decline = declined, match, decline
        self._rank, self._bound, self._threads = rank, perplexity, threads
        self._settings = Settings(epochs=epochs, batch=batch, rate=rate, kl=kl)

    def tune(self, tuning: Tuning) -> Adapter:
        """Return the adapter. Raises ModelError, with why, where too little was found out, or the gate refuses it."""
        seed = tuning.seed
        taught, held = lessons(
            tuning.past, declined=self._declined, decline=self._decline, match=self._match, seed=seed
        )
        if self._threads:
            torch.set_num_threads(self._threads)
        file = tuning.backend.describe().file
        loaded = Loaded(locate(file), device="auto", dtype="auto", trust_remote_code=False)
        as_gguf = Path(file).is_file()
        if as_gguf:
            refuse_other(loaded.model.config)
        engine = Engine(loaded.model, ROWS)
        texts = neutral(engine, loaded.vocabulary, seed)
        apart = texts[: TEXTS // 4]
        asking = [partial(_request, tuning, name) for name in PROMPTS]
        base = measure(engine, loaded.vocabulary, held, asking, apart)
        wrapped = _wrap(loaded.model, self._rank, seed)
        examples, others = (_examples(loaded.vocabulary, some, asking) for some in (taught, held))
        done = train(
            wrapped,
            examples,
            others,
            texts[TEXTS // 4 :],
            replace(self._settings, seed=seed % 2**31),
            tuning.folder / "checkpoint",
            partial(_tell, self._settings.epochs),
        )
        gate = Gate(base, measure(engine, loaded.vocabulary, held, asking, apart), self._bound)
        about = {"taught": len(taught), "held out": len(held), "epochs": [asdict(one) for one in done]}
        models.write(tuning.folder / "gate.json", json.dumps(about | {"gate": gate.plain()}, indent=1))
        if gate.refusal:
            raise ModelError(f"the adapter was refused, and the last good one stays: {gate.refusal}")
        with quiet():
            wrapped.save_pretrained(tuning.folder)
        path = write_gguf(tuning.folder, loaded.model.config) if as_gguf else tuning.folder / WEIGHTS
        return Adapter(str(path), models.sha256(path), tuning.round)


def neutral(engine: Engine, vocabulary: Vocabulary, seed: int) -> list[tuple[int, ...]]:
    """Return text that the model itself writes, in tokens: what it is like to be this model, before it is tuned."""
    jobs: list[Job] = []
    prompts = [split(vocabulary, Continuation("", OPENINGS[i % len(OPENINGS)])) for i in range(TEXTS)]
    for i, (first, rest) in enumerate(prompts):
        how = Sampling(1.0, top_p=0.95, max_tokens=LENGTH)
        jobs.append(([*first, *rest], [Writing(i, 0, Request("", how), vocabulary, Sampler(how, seed + i, 0), None)]))
    found = dict(engine.run(jobs, hidden=False))
    texts = [(i, found.get(i)) for i in range(TEXTS)]
    return [
        (*prompts[i][0], *prompts[i][1], *one.tokens)
        for i, one in texts
        if isinstance(one, Completion) and len(one.tokens) > 8
    ]


def _request(tuning: Tuning, name: str, question: str) -> Request:
    prompt = tuning.prompt(name, question=question)
    return asked_in(prompt, open_turn=is_open(prompt))


def _examples(
    vocabulary: Vocabulary, some: Sequence[Lesson], asking: Sequence[Callable[[str], Request]]
) -> list[Example]:
    """Return each lesson in each prompt, its answer up to the line's end."""
    found = []
    for lesson in some:
        for request in (make(lesson.question) for make in asking):
            pair = Continuation(request.prompt, f" {lesson.answer.strip()}\n", request.open_turn)
            prompt, tokens = split(vocabulary, pair)
            found.append(Example((*prompt, *tokens), len(prompt)))
    return found


def _wrap(model: Any, rank: int, seed: int) -> Any:
    torch.manual_seed(seed % 2**31)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet():
        return peft.get_peft_model(model, config)


def _tell(epochs: int, one: Progress) -> None:
    _log.info("epoch %d/%d: loss %.3f, KL %.4f, held-out loss %.3f", one.epoch, epochs, one.loss, one.kl, one.held)
