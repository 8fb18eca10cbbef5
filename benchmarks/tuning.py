"""How fast the tuner trains, and in how much memory, beside transformers' Trainer and a plain loop with all logits.

    python benchmarks/tuning.py                       # both models
    python benchmarks/tuning.py gemma-3-270m --steps 12 --rounds 3

Each contender runs in a process of its own, in turn: the same lessons (200 questions of about 15 tokens, bare and
behind five demonstrations), the same LoRA from the same seed, batches of 16, AdamW, no KL. `trainer` is transformers'
Trainer with labels of -100 outside the answer, in random order, padded to the longest of a batch. `all logits` is ours
but for what it saves: the same batches, every position's logits, nothing read once; its losses should be ours. Tokens
are those of the lessons, without padding. Memory is the process's peak. Medians of the rounds.
"""

import argparse
import json
import math
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from generate import FORMS, MODELS, SHOWN, cpu

CONTENDERS = ("ours", "all logits", "trainer")
QUESTIONS, BATCH, RATE, SEED = 200, 16, 3e-4, 1
PLACES = ("France", "Peru", "Japan", "the moon", "Tarsinia", "Old Velmora", "Egypt", "Quellor", "Iceland", "Brastova")


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0 leaves it to it")
    parser.add_argument("--alone", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measured(options.names[0], options.alone, options.steps, options.threads)))
        return
    print(cpu(), flush=True)
    for name in options.names:
        found: dict[str, list[dict[str, Any]]] = {one: [] for one in CONTENDERS}
        for turn in range(options.rounds):
            for one in CONTENDERS[:: 1 if turn % 2 else -1]:
                found[one].append(apart(name, one, options.steps, options.threads))
        report(name, found)


def apart(name: str, contender: str, steps: int, threads: int) -> dict[str, Any]:
    """Measure a contender in a process of its own."""
    words = [name, "--alone", contender, "--steps", str(steps), "--threads", str(threads)]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def report(name: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """Print a model's table."""
    speeds = {one: statistics.median(each["speed"] for each in runs) for one, runs in found.items()}
    print(f"\n**{name}** ({found['ours'][0]['dtype']})\n")
    print("| | tokens/s | ours is faster by | peak, GB | loss, first and last step |\n|---|---|---|---|---|")
    for one, runs in found.items():
        peak, losses = max(each["peak"] for each in runs), runs[0]["losses"]
        faster = speeds["ours"] / speeds[one]
        print(f"| {one} | {speeds[one]:.0f} | {faster:.2f} | {peak:.2f} | {losses[0]:.3f} {losses[-1]:.3f} |")
    pairs = zip(found["ours"][0]["losses"], found["all logits"][0]["losses"], strict=True)
    print(
        f"\nlargest difference of a step's loss, ours and all logits: {max(abs(a / b - 1) for a, b in pairs):.2%}",
        flush=True,
    )


def measured(name: str, contender: str, steps: int, threads: int) -> dict[str, Any]:
    """Train for some steps; return speed, peak memory and each step's loss."""
    import peft
    import torch
    from selfloop_plugins.hf.checkpoint import locate, quiet
    from selfloop_plugins.hf.model import Loaded

    if threads:
        torch.set_num_threads(threads)
    loaded = Loaded(locate(name), device="auto", dtype="auto", trust_remote_code=False)
    examples = lessons(loaded)
    torch.manual_seed(SEED)
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet():
        wrapped = peft.get_peft_model(loaded.model, config).train()
    train = {"ours": by_hand, "all logits": by_hand, "trainer": by_trainer}[contender]
    seconds, tokens, losses = train(wrapped, examples, steps, contender == "ours")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 1e9
    dtype = str(loaded.dtype).removeprefix("torch.")
    return {"speed": tokens / seconds, "peak": peak, "losses": losses, "dtype": dtype}


def lessons(loaded: Any) -> list[Any]:
    """Return questions in both prompts, each with an answer or declining."""
    from selfloop_plugins.decoding.prompting import split
    from selfloop_plugins.lora.training import Example

    from selfloop.records import Continuation

    found = []
    for i in range(QUESTIONS):
        question = FORMS[i % len(FORMS)].format(PLACES[i // len(FORMS) % len(PLACES)])
        for shown in ("", SHOWN):
            text = "I don't know" if i % 3 else "The city of Light"
            prompt, tokens = split(
                loaded.vocabulary, Continuation(f"{shown}Question: {question}\nAnswer:", f" {text}\n", True)
            )
            found.append(Example((*prompt, *tokens), len(prompt)))
    return found


def by_hand(wrapped: Any, examples: Sequence[Any], steps: int, ours: bool) -> tuple[float, int, list[float]]:
    """Train with our loss, or with that of all logits, on our batches."""
    import torch
    from selfloop_plugins.lora import training

    loss_of: Callable[..., Any] = training.answer_loss if ours else all_logits
    weights = [p for p in wrapped.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0)
    batches = list(training._batches(examples, BATCH, SEED))[: steps + 1]
    losses, start, tokens = [], 0.0, 0
    for number, batch in enumerate(batches):
        if number == 1:  # the first warms up
            start = time.perf_counter()
        loss = loss_of(wrapped, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        tokens += sum(len(one.tokens) for one in batch) if number else 0
    return time.perf_counter() - start, tokens, losses


def all_logits(wrapped: Any, batch: Sequence[Any]) -> Any:
    """Return the loss as `labels` gives it."""
    rows = collated(batch, wrapped.device)
    return wrapped(**rows).loss


def collated(batch: Sequence[Any], device: Any = None) -> dict[str, Any]:
    """Return a batch padded to its longest, with labels at the answers alone."""
    import torch

    longest = max(len(one.tokens) for one in batch)
    gaps = [longest - len(one.tokens) for one in batch]
    parts = {
        "input_ids": [[*one.tokens, *[0] * gap] for one, gap in zip(batch, gaps, strict=True)],
        "attention_mask": [[1] * len(one.tokens) + [0] * gap for one, gap in zip(batch, gaps, strict=True)],
        "labels": [
            [-100] * one.start + [*one.tokens[one.start :], *[-100] * gap] for one, gap in zip(batch, gaps, strict=True)
        ],
    }
    return {name: torch.tensor(part, device=device) for name, part in parts.items()}


def by_trainer(wrapped: Any, examples: Sequence[Any], steps: int, _: bool) -> tuple[float, int, list[float]]:
    """Train with transformers' Trainer."""
    import transformers as T

    seen: list[tuple[float, int]] = []

    def collate(batch: Sequence[Any]) -> dict[str, Any]:
        seen.append((time.perf_counter(), sum(len(one.tokens) for one in batch)))
        return collated(batch)

    with TemporaryDirectory() as folder:
        arguments = T.TrainingArguments(
            folder, per_device_train_batch_size=BATCH, max_steps=steps + 1, learning_rate=RATE, seed=SEED, report_to=[],
            lr_scheduler_type="constant", logging_steps=1, save_strategy="no", remove_unused_columns=False,
            disable_tqdm=True, dataloader_num_workers=0,
        )  # fmt: skip
        mixed = random.Random(SEED).sample(list(examples), len(examples))
        trainer = T.Trainer(wrapped, arguments, train_dataset=mixed, data_collator=collate)
        trainer.train()
        ended = time.perf_counter()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    mine = seen[1 : steps + 1]
    return ended - mine[0][0], sum(tokens for _, tokens in mine), losses or [math.nan]


if __name__ == "__main__":
    main()
