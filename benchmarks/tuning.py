"""How fast the tuner trains, and in how much memory, beside transformers' Trainer.

    python benchmarks/tuning.py                                    # both models, on made-up lessons
    python benchmarks/tuning.py gemma-3-270m --run runs/asking     # on what a run found out
    # only questions with nothing before them
    python benchmarks/tuning.py --lessons bare
    # Llama 3.2 1B's shape, random weights: for a GPU
    python benchmarks/tuning.py random-1b --steps 50

Each contender runs in a process of its own, in turn, on the same lessons: questions of about 15
tokens, bare and behind five demonstrations (about 100). The LoRA is the same, from the same seed;
so are AdamW, the rates, and batches of 16. `Trainer` is used as it comes: labels of -100 outside
the answer, random order, padded to the longest of a batch. `Trainer, our batches` gets what ours
gets, for the losses to be compared step by step. `ours, a whole tune` also learns how likely each
answer is, and has the KL term on neutral text, as the tuner does; the others learn the answers
alone. Tokens are those of the lessons, without padding, and count for each lesson also where they
are read once for a whole batch. Memory is the process's peak, on a GPU PyTorch's. Medians of the
rounds; the first step of each is not timed.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from generate import MODELS, SHOWN, cpu, questions

OURS, TRAINER, SAME, WHOLE = "ours", "Trainer", "Trainer, our batches", "ours, a whole tune"
CONTENDERS = (OURS, TRAINER, SAME, WHOLE)
BEFORE = {"bare": ("",), "shown": (SHOWN,), "both": ("", SHOWN)}
BATCH, RATE, RANK, SEED = 16, 3e-4, 16, 1
RANDOM = "random-1b"
SHAPE: dict[str, Any] = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True,
}  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """What a contender came to: when each step ended, its loss, and the tokens of its lessons."""

    ends: list[float]
    losses: list[float]
    tokens: list[int]

    @property
    def speed(self) -> float:
        """Return tokens/s from the end of the first step."""
        return sum(self.tokens[1:]) / (self.ends[-1] - self.ends[0])


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", default=MODELS, help=f"models as in a recipe, or {RANDOM}"
    )
    parser.add_argument("--run", type=Path, help="take the lessons from this run")
    parser.add_argument("--lessons", choices=BEFORE, default="both")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0 leaves it to it")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--alone", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measured(options)))
        return
    print(cpu(), flush=True)
    for name in options.names:
        found: dict[str, list[dict[str, Any]]] = {one: [] for one in options.only}
        for turn in range(options.rounds):
            for one in options.only[:: 1 if turn % 2 else -1]:
                found[one].append(apart(options.names, name, one))
        report(name, found)


def apart(names: Sequence[str], name: str, contender: str) -> dict[str, Any]:
    """Measure a contender on one of the models in a process of its own, with the other words of the
    command.
    """
    rest = [word for word in sys.argv[1:] if word not in names]
    done = subprocess.run(
        [sys.executable, __file__, *rest, "--alone", contender, name],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def report(name: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """Print a model's table."""
    speeds = {one: [each["speed"] for each in runs] for one, runs in found.items()}
    first = next(iter(found.values()))[0]
    print(f"\n**{name}** ({first['about']})\n")
    print(
        "| | tokens/s, median | least | most | ours is faster by | peak, GB "
        "|\n|---|---|---|---|---|---|"
    )
    for one, runs in found.items():
        middle = statistics.median(speeds[one])
        times = f"{statistics.median(speeds[OURS]) / middle:.2f}" if OURS in speeds else ""
        peak = max(each["peak"] for each in runs)
        print(
            f"| {one} | {middle:.0f} | {min(speeds[one]):.0f} | {max(speeds[one]):.0f} | {times} "
            f"| {peak:.2f} |"
        )
    if OURS in found and SAME in found:
        ours, same = (found[one][0]["losses"] for one in (OURS, SAME))
        largest = max(abs(a / b - 1) for a, b in zip(ours, same, strict=True))
        whole = abs(sum(ours) / sum(same) - 1)
        print(
            f"\nLoss in the first and the last of {len(ours)} steps: {ours[0]:.3f} and "
            f"{ours[-1]:.3f}, Trainer's on\n"
            f"the same batches {same[0]:.3f} and {same[-1]:.3f}. Largest difference in a step "
            f"{largest:.2%},\n"
            f"of the means {whole:.2%}"
        )
    sys.stdout.flush()


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Train for some steps; return speed, peak memory and each step's loss."""
    import peft
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    model, vocabulary = opened(options.names[0], options.dtype)
    examples = lessons(vocabulary, options)
    torch.manual_seed(SEED)
    config = peft.LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    wrapped = peft.get_peft_model(model, config)
    train = by_us if options.alone in (OURS, WHOLE) else by_trainer
    ran = train(wrapped, examples, options.alone)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 1e9
    dtype = str(model.dtype).removeprefix("torch.")
    about = f"{dtype} on {model.device.type}, {len(examples)} lessons, "
    about += f"{sum(ran.tokens) / len(examples):.0f} tokens each"
    return {"speed": ran.speed, "peak": peak, "losses": ran.losses, "about": about}


def opened(name: str, dtype: str) -> tuple[Any, Any]:
    """Return a model on its device, and its vocabulary; the one with random weights has that of
    SmolLM2.
    """
    import torch
    import transformers as T
    from selfloop_plugins._torch.checkpoint import locate
    from selfloop_plugins._torch.model import Loaded

    if name != RANDOM:
        loaded = Loaded(locate(name), device="auto", dtype=dtype, trust_remote_code=False)
        return loaded.model, loaded.vocabulary
    other = Loaded(locate(MODELS[0]), device="auto", dtype=dtype, trust_remote_code=False)
    torch.manual_seed(SEED)
    with other.device:
        model = T.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            T.LlamaConfig(**SHAPE), dtype=other.dtype
        )
    return model.eval().requires_grad_(requires_grad=False), other.vocabulary


def lessons(vocabulary: Any, options: argparse.Namespace) -> list[Any]:
    """Return as many examples as the steps take, of a run's lessons or of made-up ones."""
    from selfloop_plugins.tuners.lora.tokenized import Text, tokenize
    from selfloop_plugins.tuners.lora.training_examples import TrainingExample, training_examples

    from selfloop import Request
    from selfloop.storage.store import Store

    if options.run:
        store = Store(options.run, write=False)
        taught, _ = training_examples(
            store.history(), decline_share=None, match_form=True, seed=SEED
        )
        store.close()
    else:
        answers = ("Paris", "the golden eagle", "Old Velmorian", "King Harald the First")
        taught = [
            TrainingExample(text, answers[i % 4], 0.1 if i % 3 else 0.9)
            for i, text in enumerate(questions((options.steps + 1) * BATCH))
        ]
    texts = [
        (one, f"{shown}Question: {one.question}\nAnswer:")
        for one in taught
        for shown in BEFORE[options.lessons]
    ]
    some = random.Random(SEED).sample(texts, min(len(texts), (options.steps + 1) * BATCH))
    asked = [(one, Request(text)) for one, text in some]
    return [
        tokenize(
            vocabulary,
            one,
            request,
            request,
            text=Text.UNKNOWN if one.p_correct < 0.5 else Text.ANSWER,
        )
        for one, request in asked
    ]


def by_us(wrapped: Any, examples: Sequence[Any], contender: str) -> Ran:
    """Train with the tuner's loop, for one epoch."""
    from selfloop_plugins.tuners.lora import training
    from selfloop_plugins.tuners.lora.settings import LoraSettings
    from selfloop_plugins.tuners.lora.tokenized import batches_of_like_length

    whole = contender == WHOLE
    settings = LoraSettings(epochs=1, batch=BATCH, rate=RATE, kl=1.0 if whole else 0.0)
    some = examples if whole else hard(examples)
    tokens = [token for one in examples for token in one.tokens]
    neutral = [tuple(tokens[i * 64 : i * 64 + 64]) for i in range(16)]
    ends, losses = list[float](), list[float]()

    def learnt(_: int, __: int, loss: float) -> None:
        ends.append(time.perf_counter())
        losses.append(loss)

    with TemporaryDirectory() as folder:
        data = training.TrainingData(some, (), neutral, seed=SEED)
        training.train(wrapped, data, settings, Path(folder) / "one", lambda one: None, learnt)
    return Ran(
        ends,
        losses,
        [
            sum(len(one.tokens) for one in batch)
            for batch in batches_of_like_length(some, BATCH, SEED)
        ],
    )


def hard(examples: Sequence[Any]) -> list[Any]:
    """Return the examples with nothing but the answer to be learnt: what `labels` can say."""
    return [replace(one, decisions=(), num_distilled=0) for one in examples]


def by_trainer(wrapped: Any, examples: Sequence[Any], contender: str) -> Ran:
    """Train with transformers' Trainer, for one epoch."""
    import torch
    import transformers as T
    from selfloop_plugins.tuners.lora.tokenized import batches_of_like_length
    from selfloop_plugins.tuners.lora.training import set_learning_rate

    groups = batches_of_like_length(hard(examples), BATCH, SEED)
    if contender == TRAINER:
        mixed = random.Random(SEED).sample(hard(examples), len(examples))
        groups = [mixed[i : i + BATCH] for i in range(0, len(mixed), BATCH)]
    optimizer = torch.optim.AdamW(
        [p for p in wrapped.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0
    )
    ends = list[float]()

    class Rates:
        """The tuner's rates, as Trainer wants them: one that says `lr` and steps."""

        step_number = 0

        def step(self) -> None:
            ends.append(time.perf_counter())
            self.step_number += 1
            set_learning_rate(optimizer, RATE, self.step_number, len(groups))

        def get_last_lr(self) -> list[float]:
            return [group["lr"] for group in optimizer.param_groups]

        def state_dict(self) -> dict[str, Any]:
            return {}

    class Fed(T.Trainer):
        """A Trainer that is fed batches as they are."""

        def get_train_dataloader(self) -> Any:
            loader: Any = torch.utils.data.DataLoader(groups, batch_size=None, collate_fn=collated)  # type: ignore[arg-type]
            return self.accelerator.prepare(loader)

    rates: Any = Rates()
    set_learning_rate(optimizer, RATE, 0, len(groups))
    with TemporaryDirectory() as folder:
        arguments = T.TrainingArguments(
            folder, per_device_train_batch_size=BATCH, num_train_epochs=1, seed=SEED, report_to=[],
            logging_steps=1,
            save_strategy="no", remove_unused_columns=False, disable_tqdm=True,
        )  # fmt: skip
        trainer = Fed(wrapped, arguments, train_dataset=groups, optimizers=(optimizer, rates))
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return Ran(ends, losses, [sum(len(one.tokens) for one in group) for group in groups])


def collated(batch: Sequence[Any]) -> dict[str, Any]:
    """Return a batch padded to its longest, with labels at the answers alone."""
    import torch

    longest = max(len(one.tokens) for one in batch)
    rows: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for one in batch:
        gap = longest - len(one.tokens)
        rows["input_ids"].append([*one.tokens, *[0] * gap])
        rows["attention_mask"].append([1] * len(one.tokens) + [0] * gap)
        rows["labels"].append(
            [-100] * one.answer_start + [*one.tokens[one.answer_start :]] + [-100] * gap
        )
    return {name: torch.tensor(part) for name, part in rows.items()}


if __name__ == "__main__":
    main()
