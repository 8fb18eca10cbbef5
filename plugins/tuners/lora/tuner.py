"""One tune: examples, training and gate, from a run's history to an adapter's file."""

import logging
import math
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import peft
import torch
from selfloop_plugins import models
from selfloop_plugins._decoding.prompting import pieces
from selfloop_plugins._decoding.tasks import Vocabulary
from selfloop_plugins._shared.gate_report import write_gate
from selfloop_plugins._torch import memory
from selfloop_plugins._torch.adapter import WEIGHTS, refuse_unknown_architecture, write_gguf
from selfloop_plugins._torch.backend import Transformers
from selfloop_plugins._torch.checkpoint import quiet, saving
from selfloop_plugins._torch.model import Loaded, allow_amx, trunk
from selfloop_plugins._torch.options import Dtype, HfOptions
from transformers.pytorch_utils import Conv1D

from selfloop import Question, Request, Sampling, TuneContext, progress
from selfloop.config.prompts import is_open
from selfloop.errors import ModelError
from selfloop.protocols import Backend
from selfloop.records import Adapter, Completion
from selfloop.storage import atomic

from .checkpoint import EpochResult
from .conversation import (
    Exchange,
    Turn,
    exchanges_of,
    request_turns,
    turn_examples,
    write_turns,
)
from .gate import Gate, GateBounds, GateFigures, gold_shares, measure
from .last_block import edited_layer
from .launch import Job, training
from .losses import POSITIONS_AT_ONCE
from .measures import decline_excess
from .other_answers import other_answers
from .rank_one import TurnDecision, clear, solve
from .settings import Decide, LoraSettings
from .tokenized import (
    MakeRequest,
    TokenizedExample,
    Tokens,
    batches_of_like_length,
    padded_tokens,
    tokenize_all,
)
from .training import KL_TEXTS_PER_STEP, TrainingData, train
from .training_examples import TrainingExample, training_examples
from .turn_decisions import (
    ends_of_requests,
    reply_decisions,
    rewordings,
    still_texts,
    turn_decisions,
    within_replies,
)
from .turn_figures import TurnFigures, measure_turns

# the prompts that are trained on: a question by itself, and as the loop asks it. The last one gave
# the answers, and so is the teacher's.
PROMPTS = ("tune_bare", "answer")
# beginnings of neutral text, from which the base writes on
OPENINGS = (
    "The", "In the", "It was", "A small", "When", "After the", "Most people", "My", "She",
    "One of the", "There are", "During", "As a", "He", "For many years", "This",
)  # fmt: skip
NEUTRAL_TEXTS = 160
NEUTRAL_TOKENS = 64  # at most, of each
GATE_QUESTIONS = 40  # at most, that the gate asks in the chat form: each reply is generated
CANDIDATE = "candidate"  # folder of an adapter that the gate has not taken
GATE_TEXTS = 16  # neutral texts that are for the gate alone, and never trained on
MIN_NEUTRAL_TOKENS = 8  # a text that ended sooner says too little
MAX_SEED = 2**31
# The upper layers have an adapter. There the model decides what it says, and the others are read
# without gradients.
ADAPTED_SHARE = 0.5
ANSWER_GREEDILY = Sampling(max_tokens=32, stop=("\n",))

_log = logging.getLogger("selfloop.tune")


def tune(context: TuneContext, settings: LoraSettings, gold: Sequence[Question]) -> Adapter:
    """Train an adapter from the base, on all that the run holds, and return it.

    Raises ModelError, with the reason, where there is too little to learn from, where memory does
    not suffice, or where the gate refuses the adapter.
    """
    taught, held_out = training_examples(
        context.history,
        decline_share=settings.decline_share,
        match_form=settings.match_form,
        seed=context.seed,
    )
    file = context.backend.describe().file
    allow_amx()
    backend = Transformers(HfOptions(model=file, threads=settings.threads))
    as_gguf = Path(file).is_file()  # else it is a folder or a name of transformers
    if as_gguf:
        refuse_unknown_architecture(backend.loaded.model.config)

    if context.history.adapter is not None:
        context.backend.load_adapter(None)  # the teacher is the base
    prompts = [partial(_prompt_request, context, name) for name in PROMPTS]
    vocabulary = backend.loaded.vocabulary
    is_taught_to_chat = settings.chat and _is_chat(prompts[0]("Who?"))
    # people meet a chat model in its own form: there the mark stands, and not in the loop's
    decide_in_quiz: Decide = "before" if is_taught_to_chat else settings.decide
    lessons = _lessons(context, vocabulary, prompts, taught, held_out, decide_in_quiz)
    if is_taught_to_chat:
        _add_turns(lessons, context, backend.loaded, taught, held_out, settings)
    seed = context.seed % MAX_SEED
    if decide_in_quiz != "before":
        others = other_answers(context.backend, taught, prompts[-1], seed)
        rng = random.Random(seed)
        lessons.quiz += tokenize_all(vocabulary, others, prompts, rng, "after")
    _refuse_too_large(backend, lessons.examples, lessons.exchanges, settings, seed)

    texts = neutral_texts(context.backend, vocabulary, context.seed)
    gate_texts, training_texts = texts[:GATE_TEXTS], texts[GATE_TEXTS:]
    wrapped = wrap(backend.loaded.model, settings.rank, seed, edited=bool(lessons.decisions))

    def measure_model(name: str) -> GateFigures:
        with progress.task(f"measuring {name}"):
            figures = measure(wrapped, lessons.of_gate, gate_texts, settings.batch)
            return replace(figures, gold=_gold_shares(backend, prompts, gold))

    # an adapter changes nothing before it is trained
    base = replace(measure_model("the base"), turn=lessons.base_turns)
    data = TrainingData(lessons.examples, lessons.of_bias, training_texts, lessons.exchanges, seed)
    # the others might choose another type, on another processor
    dtype = cast(Dtype, str(backend.loaded.dtype).removeprefix("torch."))
    with _naming(context.folder):
        with training(Job(file, dtype, settings, data, bool(lessons.decisions))) as processes:
            epochs = train(
                wrapped,
                data,
                settings,
                context.folder / "checkpoint",
                partial(_log_epoch, settings.epochs),
                context.on_batch,
                processes,
            )
        _solve_all(wrapped, vocabulary, lessons, training_texts, settings, seed)
        tuned = measure_model("the adapter")
        config = backend.loaded.model.config if as_gguf else None
        candidate = _write_adapter(wrapped, context.folder / CANDIDATE, config)
        adapter = Adapter(str(candidate), models.sha256(candidate), context.round)
        if lessons.turns:
            # by the engine that people will have, and with the file that it will load
            context.backend.load_adapter(adapter)
            tuned = replace(tuned, turn=measure_turns(context.backend, lessons.turns))
        gate = Gate(base, tuned, _bounds(settings))
        write_gate(
            context.folder,
            taught=len(taught),
            held_out=len(held_out),
            epochs=[epoch.figures() for epoch in epochs],
            gate=gate.figures(),
        )
        if gate.refusal:
            raise ModelError(
                f"the adapter was refused, and the last good one stays: {gate.refusal}. The "
                f"refused one is in {candidate.parent}"
            )
        _log.info("the adapter of round %d is taken: %s", context.round, gate.summary)
        return replace(adapter, path=str(_taken(candidate)))


@dataclass
class Lessons:
    """All that a training and its gate read of questions.

    quiz        examples that are trained on, in the prompts of the loop
    replies     examples that are trained on, in a chat; none of a base model
    of_bias     held-out examples that set the decline bias
    of_gate     held-out examples that judge the adapter, in the prompts of the loop
    turns       held-out questions that judge it in the chat form; none of a base model
    requests    that ask for no fact, with the base's replies
    exchanges   the same, in tokens
    decisions   of a chat model, before its replies and behind them: of each place that it decides
                in, solved after the training
    base_turns  the base's own figures on `turns`
    """

    quiz: list[TokenizedExample]
    of_bias: list[TokenizedExample]
    of_gate: list[TokenizedExample]
    replies: list[TokenizedExample] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    requests: list[Turn] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    decisions: dict[Decide, list[TurnDecision]] = field(default_factory=dict)
    base_turns: TurnFigures | None = None

    @property
    def examples(self) -> list[TokenizedExample]:
        """Return all that is trained on."""
        return [*self.quiz, *self.replies]


def _lessons(
    context: TuneContext,
    vocabulary: Vocabulary,
    prompts: Sequence[MakeRequest],
    taught: Sequence[TrainingExample],
    held_out: Sequence[TrainingExample],
    decide: Decide,
) -> Lessons:
    """Return the examples in the prompts of the loop.

    One half of the held-out questions is the gate's, the other sets the decline bias.
    """
    tokenized = partial(tokenize_all, vocabulary, prompts=prompts, decide=decide)
    return Lessons(
        tokenized(taught, rng=random.Random(context.seed)),
        tokenized(held_out[1::2]),
        tokenized(held_out[::2]),
    )


def _add_turns(
    lessons: Lessons,
    context: TuneContext,
    loaded: Loaded,
    taught: Sequence[TrainingExample],
    held_out: Sequence[TrainingExample],
    settings: LoraSettings,
) -> None:
    """Add the same questions in the form of a chat.

    The run's own engine writes the replies: it is quicker, and a resumed run finds them stored.
    """
    backend, decide, vocabulary = context.backend, settings.decide, loaded.vocabulary
    rng = random.Random(context.seed)
    requests = request_turns(backend)
    turns = write_turns(backend, taught)
    if decide != "after":
        reworded = rewordings(backend, taught, context.prompt, context.seed % MAX_SEED)
        lessons.decisions["before"] = turn_decisions(
            loaded.model, vocabulary, turns, reworded, settings.batch
        )
    if decide != "before":
        lessons.decisions["after"] = reply_decisions(
            loaded.model, vocabulary, turns, settings.batch
        )
    lessons.replies += turn_examples(vocabulary, [*turns, *requests], rng, decide)
    of_bias = write_turns(backend, held_out[1::2])
    lessons.of_bias += turn_examples(vocabulary, of_bias, decide=decide)
    lessons.turns += write_turns(backend, held_out[::2][:GATE_QUESTIONS])
    lessons.requests += requests
    lessons.exchanges += exchanges_of(vocabulary, requests)
    lessons.base_turns = measure_turns(backend, lessons.turns)


def _solve_all(
    wrapped: Any,
    vocabulary: Vocabulary,
    lessons: Lessons,
    neutral_texts: Sequence[Tokens],
    settings: LoraSettings,
    seed: int,
) -> None:
    """Solve when a chat model declines, in each place where it decides."""
    excess = partial(decline_excess, keep=settings.kept_by_each, price=settings.price)
    for row, (place, decisions) in enumerate(lessons.decisions.items()):
        if not decisions:  # every reply declines already
            continue
        still = still_texts(
            vocabulary,
            lessons.requests,
            lessons.quiz,
            lessons.replies,
            neutral_texts,
            seed,
            decisions,
        )
        kinds = list(still)
        if place == "after":
            kinds.append(ends_of_requests(vocabulary, lessons.requests))
            kinds.append(within_replies(vocabulary, decisions, seed))
        solve(wrapped, decisions, kinds, excess, settings.batch, row)


def _is_chat(request: Request) -> bool:
    return not isinstance(request.prompt, str)


def _bounds(settings: LoraSettings) -> GateBounds:
    return GateBounds(
        settings.perplexity, settings.min_declined, settings.min_ended, settings.max_refused
    )


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Raise ModelError, with the folder, where the system refuses to write there."""
    try:
        with saving():
            yield
    except OSError as error:
        raise ModelError(
            f"cannot write into {folder}: {error}. Free some space, and tune again"
        ) from error


def _refuse_too_large(
    backend: Transformers,
    examples: Sequence[TokenizedExample],
    exchanges: Sequence[Exchange],
    settings: LoraSettings,
    seed: int,
) -> None:
    """Raise ModelError, with both numbers, where the adapter and the largest batch do not fit into
    the free memory."""
    batches = batches_of_like_length(examples, settings.batch, seed)
    # the tokens of a step, kept for the backward pass: a batch, and the texts of the KL term
    longest_exchange = max((len(exchange.tokens) for exchange in exchanges), default=0)
    kl_tokens = KL_TEXTS_PER_STEP * max(NEUTRAL_TOKENS, longest_exchange)
    tokens = max(map(padded_tokens, batches)) + kl_tokens
    positions = max(map(_answer_tokens, batches))
    bytes_needed = memory.training(
        backend.loaded.model,
        share=ADAPTED_SHARE,
        rank=settings.rank,
        tokens=tokens,
        learnt=min(positions, POSITIONS_AT_ONCE),
    )
    advice = (
        f"Lower the tuner's batch ({settings.batch}) or rank ({settings.rank}), or take a smaller "
        "model"
    )
    memory.refuse(bytes_needed, "training an adapter", backend.loaded.device, advice)


def _answer_tokens(batch: Sequence[TokenizedExample]) -> int:
    """Return how many tokens of a batch are learnt."""
    return sum(len(example.answer_positions) for example in batch)


def neutral_texts(backend: Backend, vocabulary: Vocabulary, seed: int) -> list[tuple[int, ...]]:
    """Return texts that the base writes, in tokens.

    The run's own engine writes them: it is quicker, and a resumed run finds them stored.
    """
    sampling = Sampling(1.0, top_p=0.95, max_tokens=NEUTRAL_TOKENS)
    requests = [
        Request(OPENINGS[i % len(OPENINGS)], sampling, seed=seed + i) for i in range(NEUTRAL_TEXTS)
    ]
    completions = dict(
        progress.counted("writing neutral text", backend.generate(requests), "texts", len(requests))
    )
    texts: list[tuple[int, ...]] = []
    for i, request in enumerate(requests):
        completion = completions.get(i)  # or the error of a request that was refused
        if isinstance(completion, Completion) and len(completion.tokens) > MIN_NEUTRAL_TOKENS:
            opening = vocabulary.tokens(pieces(vocabulary, request))
            texts.append((*opening, *completion.tokens))
    return texts


def _prompt_request(context: TuneContext, prompt_name: str, question: str) -> Request:
    prompt = context.prompt(prompt_name, question=question)
    return Request(prompt, open_turn=is_open(prompt))


def _gold_shares(
    backend: Transformers, prompts: Sequence[MakeRequest], gold: Sequence[Question]
) -> tuple[float, float] | None:
    """Return the shares of gold questions that are answered rightly and wrongly, over all prompts;
    None without gold questions."""
    questions: list[Question] = []
    requests: list[Request] = []
    for make_request in prompts:
        for question in gold:
            questions.append(question)
            requests.append(replace(make_request(question.text), sampling=ANSWER_GREEDILY))
    completions = dict(
        progress.counted("gold questions", backend.generate(requests), "answers", len(requests))
    )
    if not questions:
        return None
    answers = []
    for i in range(len(requests)):
        completion = completions[i]
        answers.append(completion.text if isinstance(completion, Completion) else "")
    return gold_shares(questions, answers)


def wrap(model: Any, rank: int, seed: int, *, edited: bool = False) -> Any:
    """Return the model with a new adapter on all linear layers of the upper ones; alpha is twice
    the rank. With `edited` no training changes the layer that `rank_one.solve` edits."""
    torch.manual_seed(seed)
    num_layers = model.config.get_text_config().num_hidden_layers
    lowest = num_layers - math.ceil(ADAPTED_SHARE * num_layers)
    linear = {
        name.rpartition(".")[2]
        for name, module in trunk(model).named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=sorted(linear),
        layers_to_transform=list(range(lowest, num_layers)),
        task_type="CAUSAL_LM",
    )
    with quiet():
        wrapped = peft.get_peft_model(model, config)
    if edited:
        clear(wrapped)
        edited_layer(wrapped).requires_grad_(requires_grad=False)
    return wrapped


def _write_adapter(wrapped: Any, folder: Path, config: Any) -> Path:
    """Write the adapter's files, each whole or not at all; return the one that a backend loads.

    With the `config` of a model that came as GGUF, that is a GGUF file beside peft's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.scratch_folder(folder / "adapter") as scratch:
        with quiet():
            wrapped.save_pretrained(scratch)
        (scratch / "README.md").unlink(missing_ok=True)  # peft's card: gaps to be filled in
        name = (scratch / WEIGHTS if config is None else write_gguf(scratch, config)).name
        for file in sorted(scratch.iterdir()):
            atomic.move(file, folder / file.name)
    return folder / name


def _taken(candidate: Path) -> Path:
    """Move a candidate's files to where the adapter of its round is; return the loaded one."""
    folder = candidate.parent.parent
    for file in sorted(candidate.parent.iterdir()):
        atomic.move(file, folder / file.name)
    shutil.rmtree(candidate.parent)
    return folder / candidate.name


def _log_epoch(epochs: int, result: EpochResult) -> None:
    _log.info(
        "epoch %d/%d: loss %.3f, KL %.4f, held-out loss %.3f",
        result.epoch,
        epochs,
        result.loss,
        result.kl,
        result.held_out_loss,
    )
