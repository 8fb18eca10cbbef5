"""`Lora`: lessons, training and gate as one `selfloop.protocols.Tuner`."""

import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import peft
import torch
from selfloop_plugins import models
from selfloop_plugins._decoding.prompting import decline_token, pieces, split
from selfloop_plugins._decoding.tasks import Vocabulary
from selfloop_plugins._torch import memory
from selfloop_plugins._torch.adapter import WEIGHTS, refuse_unknown_architecture, write_gguf
from selfloop_plugins._torch.backend import Transformers
from selfloop_plugins._torch.checkpoint import quiet, saving
from selfloop_plugins._torch.options import HfOptions

from selfloop import Question, Request, Sampling, Tuning, progress
from selfloop.config.prompts import is_open
from selfloop.errors import ModelError
from selfloop.records import Adapter, Completion, Continuation
from selfloop.storage import atomic
from selfloop.storage.run_folder import gate_file
from selfloop.text.answers import UNKNOWN, declines

from .gate import Gate, Measured, measure, scored
from .lessons import Lesson, lessons
from .training import PIECE, Example, Progress, Settings, batches, begin_alike, train

PROMPTS = ("tune_bare", "answer")  # a question by itself, and as the loop asks it
OPENINGS = (
    "The", "In the", "It was", "A small", "When", "After the", "Most people", "My", "She", "One of the", "There are",
    "During", "As a", "He", "For many years", "This",
)  # fmt: skip
TEXTS, LENGTH = 160, 64  # neutral texts, of which some are for the gate alone, and their tokens
APART = 16
ANSWERING = Sampling(max_tokens=32, stop=("\n",))

_log = logging.getLogger("selfloop.tune")


class Lora:
    """Trains an adapter of the model that the backend runs, anew each time, on all that the run
    holds.

    Arguments are those of the recipe; see `build`.
    """

    def __init__(
        self,
        *,
        declined: float | None,
        match: bool,
        keep: float,
        rank: int,
        rate: float,
        epochs: int,
        batch: int,
        kl: float,
        preference: float | None,
        perplexity: float,
        gold: Sequence[Question],
        threads: int | None,
    ) -> None:
        self._declined, self._match, self._rank = declined, match, rank
        self._bound, self._gold, self._threads = perplexity, gold, threads
        self._settings = Settings(
            epochs=epochs, batch=batch, rate=rate, kl=kl, keep=keep, preference=preference
        )

    def tune(self, tuning: Tuning) -> Adapter:
        """Return the adapter.

        Raises ModelError, with why, where too little was found out, or the gate refuses it.
        """
        taught, held = lessons(
            tuning.past, declined=self._declined, match=self._match, seed=tuning.seed
        )
        file = tuning.backend.describe().file
        backend = Transformers(HfOptions(model=file, threads=self._threads))
        if as_gguf := Path(file).is_file():
            refuse_unknown_architecture(backend.loaded.model.config)
        asking = [partial(_request, tuning, name) for name in PROMPTS]
        vocabulary = backend.loaded.vocabulary
        examples = _examples(vocabulary, taught, asking, random.Random(tuning.seed))
        judged, turning = (_examples(vocabulary, some, asking) for some in (held[::2], held[1::2]))
        begins = decline_token(vocabulary, asking[0]("Who?"))
        settings = replace(self._settings, seed=tuning.seed % 2**31, decline=begins)
        _refuse_too_large(backend, examples, settings, self._rank)
        texts = neutral(backend, tuning.seed)
        wrapped = _wrap(backend.loaded.model, self._rank, tuning.seed)

        def measured(which: str) -> Measured:
            with progress.task(f"measuring {which}"):
                own = measure(wrapped, judged, texts[:APART], decline=begins, batch=settings.batch)
                return replace(own, gold=_scored(backend, asking, self._gold))

        base = measured("the base")  # an adapter changes nothing before it is trained
        with _writing(tuning.folder):
            done = train(
                wrapped,
                examples,
                turning,  # what the dial is turned by
                texts[APART:],
                settings,
                tuning.folder / "checkpoint",
                partial(_tell, settings.epochs),
                tuning.tell,
            )
            gate = Gate(base, measured("the adapter"), self._bound)
            about = {
                "taught": len(taught),
                "held out": len(held),
                "epochs": [asdict(one) for one in done],
            }
            atomic.write_text(
                gate_file(tuning.folder), json.dumps(about | {"gate": gate.plain()}, indent=1)
            )
            if gate.refusal:
                raise ModelError(
                    f"the adapter was refused, and the last good one stays: {gate.refusal}"
                )
            _log.info("the adapter of round %d is taken: %s", tuning.round, gate.told)
            path = _written(
                wrapped, tuning.folder, backend.loaded.model.config if as_gguf else None
            )
            return Adapter(str(path), models.sha256(path), tuning.round)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raise ModelError for a disk that is full."""
    try:
        with saving():
            yield
    except OSError as error:
        raise ModelError(
            f"cannot write into {folder}: {error}. Free some space, and tune again"
        ) from error


def _refuse_too_large(
    backend: Transformers, examples: Sequence[Example], settings: Settings, rank: int
) -> None:
    """Raise ModelError, with the numbers, where the largest batch and what the adapter needs do not fit memory."""
    groups = batches(examples, settings.batch, settings.seed)
    read = max(map(_read, groups)) + settings.neutral * LENGTH
    learnt = max(sum(len(one.tokens) - one.start for one in group) for group in groups)
    need = memory.training(backend.loaded.model, rank=rank, tokens=read, learnt=min(learnt, PIECE))
    advice = f"Lower the tuner's batch ({settings.batch}) or rank ({rank}), or take a smaller model"
    memory.refuse(need, "training an adapter", backend.loaded.device, advice)


def _read(group: Sequence[Example]) -> int:
    """Return how many tokens are read for a batch: what all begin with once, the rest padded to the longest."""
    texts = [one.tokens for one in group]
    shared = begin_alike(texts)
    return shared + len(texts) * (max(map(len, texts)) - shared)


def neutral(backend: Transformers, seed: int) -> list[tuple[int, ...]]:
    """Return text that the model itself writes, in tokens: what it is like to be this model, before it is tuned."""
    how = Sampling(1.0, top_p=0.95, max_tokens=LENGTH)
    requests = [Request(OPENINGS[i % len(OPENINGS)], how, seed=seed + i) for i in range(TEXTS)]
    written = dict(
        progress.counted("writing neutral text", backend.generate(requests), "texts", len(requests))
    )
    vocabulary = backend.loaded.vocabulary
    return [
        (*vocabulary.tokens(pieces(vocabulary, request)), *one.tokens)
        for i, request in enumerate(requests)
        if isinstance(one := written.get(i), Completion) and len(one.tokens) > 8
    ]


def _request(tuning: Tuning, name: str, question: str) -> Request:
    prompt = tuning.prompt(name, question=question)
    return Request(prompt, open_turn=is_open(prompt))


def _scored(
    backend: Transformers, asking: Sequence[Callable[[str], Request]], gold: Sequence[Question]
) -> tuple[float, float] | None:
    """Return the shares of gold questions that are answered rightly and wrongly, over all prompts; None without any."""
    asked = [(one, replace(make(one.text), sampling=ANSWERING)) for make in asking for one in gold]
    requests = [request for _, request in asked]
    said = dict(
        progress.counted("gold questions", backend.generate(requests), "answers", len(requests))
    )
    texts = [one.text if isinstance(one := said[i], Completion) else "" for i in range(len(asked))]
    return scored([question for question, _ in asked], texts) if asked else None


def _examples(
    vocabulary: Vocabulary,
    some: Sequence[Lesson],
    asking: Sequence[Callable[[str], Request]],
    luck: random.Random | None = None,
) -> list[Example]:
    """Return each lesson in each prompt, by prompt: texts that begin alike are read together.

    With `luck`, how to decline stands for half of what is likelier wrong.
    """
    rows = [(one, asking[-1](one.question), not one.answer or declines(one.answer)) for one in some]
    found = []
    for make in asking:
        for lesson, shown, silent in rows:
            unknown = silent or bool(luck and lesson.chance < 0.5 and luck.random() < 0.5)
            found.append(example(vocabulary, lesson, make(lesson.question), shown, unknown=unknown))
    return found


def example(
    vocabulary: Vocabulary, lesson: Lesson, request: Request, shown: Request, *, unknown: bool
) -> Example:
    """Return a lesson in a prompt: how likely its answer is true, and the answer, or how to
    decline, to the line's end.

    The answer is learnt as the base distributes it behind `shown`, the prompt in which it was
    given. Where it is believed, and the base would say something else (it was revised), as it
    stands.
    """
    text = UNKNOWN if unknown else lesson.answer
    (prompt, tokens), (source, _) = (
        split(vocabulary, Continuation(one.prompt, f" {text}\n", one.open_turn))
        for one in (request, shown)
    )
    own = 1 if unknown else len(tokens)
    return Example(
        (*prompt, *tokens), len(prompt), lesson.chance, source, own, firm=lesson.chance >= 0.5
    )


def _wrap(model: Any, rank: int, seed: int) -> Any:
    torch.manual_seed(seed % 2**31)
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with quiet():
        return peft.get_peft_model(model, config)


def _written(wrapped: Any, folder: Path, config: Any) -> Path:
    """Write the adapter, each file whole or not at all; return the one to load: a GGUF file, given a `config`."""
    with atomic.scratch_folder(folder / "adapter") as scratch:
        with quiet():
            wrapped.save_pretrained(scratch)
        name = (scratch / WEIGHTS if config is None else write_gguf(scratch, config)).name
        for file in sorted(scratch.iterdir()):
            atomic.move(file, folder / file.name)
    return folder / name


def _tell(epochs: int, one: Progress) -> None:
    _log.info(
        "epoch %d/%d: loss %.3f, KL %.4f, held-out loss %.3f",
        one.epoch,
        epochs,
        one.loss,
        one.kl,
        one.held,
    )
