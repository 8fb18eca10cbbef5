"""What a model does in its own chat form, as any client of llama.cpp meets it.

    python benchmarks/conversation.py DATA MODEL                     # as it is
    python benchmarks/conversation.py DATA MODEL --adapter RUN ...   # before, and with each adapter
    python benchmarks/conversation.py DATA MODEL --transcripts FILE

Questions are asked bare in a user turn, through llama-cpp-python alone: nothing of selfloop touches
prompt or sampling. A reply counts as right if it holds a gold answer among its words, and as
declined by selfloop's rule; `marked` of these answer, and say behind the answer that they do not
know. `kept` and `wrong left` compare with the model as it is: the share of its right answers that
are still right, and the share of its wrong answers that are left. `ended` is the share of turns
that the model ends itself within the limit of tokens. `loops` are replies in which one sentence
comes three times. The requests of benchmarks/data/requests.txt ask for no fact: a reply that
declines is a refusal.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfloop_plugins import models
from selfloop_plugins.backends.llama_cpp.plain import PlainLlama

from selfloop import Question
from selfloop.data import read
from selfloop.evaluation.gold import judged, match_named
from selfloop.text.answers import declines, is_marked

MAX_TOKENS = 64
SETS = ("easy_facts", "curatedtrec")
REQUESTS = Path(__file__).parent / "data" / "requests.txt"
CONTAINS = match_named("contains")
SEED = 7
TIMES_OF_A_LOOP = 3


@dataclass(frozen=True)
class Reply:
    """A reply, and whether the model ended its turn."""

    text: str
    ended: bool

    @property
    def loops(self) -> bool:
        """Return whether a sentence comes again and again."""
        sentences = [part.strip() for part in self.text.replace("\n", ". ").split(". ")]
        times = Counter(sentence for sentence in sentences if len(sentence) > 3)
        return max(times.values(), default=0) >= TIMES_OF_A_LOOP or _repeats_words(self.text)


def _repeats_words(text: str) -> bool:
    """Return whether the last three words came three times in a row."""
    words = text.split()
    last = words[-3:]
    return len(words) >= 9 and words[-6:-3] == last and words[-9:-6] == last


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("--adapter", type=Path, nargs="*", default=[], help="GGUF files")
    parser.add_argument("--questions", type=int, default=200, help="of each set")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--system", help="a system prompt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--transcripts", type=Path)
    options = parser.parse_args()
    requests = [line for line in REQUESTS.read_text().splitlines() if not line.startswith("#")]
    questions = {
        name: chosen(options.data / f"{name}.jsonl", options.questions) for name in options.sets
    }
    file = models.locate(options.model)
    print(f"{options.model}, {MAX_TOKENS} tokens, system prompt: {options.system or 'none'}\n")
    base: dict[str, list[Reply]] = {}
    with_transcripts = []
    for adapter in (None, *options.adapter):
        client = PlainLlama(
            str(file),
            lora_path=str(adapter) if adapter else None,
            n_ctx=2048,
            n_threads=options.threads,
            verbose=False,
        )
        asked = {name: [q.text for q in rows] for name, rows in questions.items()}
        replies = {
            name: [reply(client, text, options.system) for text in texts]
            for name, texts in (asked | {"requests": requests}).items()
        }
        base = base or replies
        label = adapter or "as it is"
        print(f"**{label}**\n")
        print("\n".join(table(questions, replies, base)), flush=True)
        for name, texts in (asked | {"requests": requests}).items():
            for text, answer in zip(texts, replies[name], strict=True):
                with_transcripts.append(
                    {"model": str(label), "set": name, "asked": text, "reply": answer.text}
                    | {"ended": answer.ended, "declines": declines(answer.text)}
                )
        client.close()
    if options.transcripts:
        lines = [json.dumps(row, ensure_ascii=False) for row in with_transcripts]
        options.transcripts.write_text("\n".join(lines) + "\n", "utf-8")


def chosen(path: Path, count: int) -> list[Question]:
    """Return questions of a set, drawn once for all models."""
    questions = list(read(path, "eval").questions)
    random.Random(SEED).shuffle(questions)
    return questions[:count]


def reply(client: PlainLlama, text: str, system: str | None) -> Reply:
    """Return the greedy reply to one message of a user."""
    messages: list[Any] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    made: Any = client.create_chat_completion(messages, temperature=0.0, max_tokens=MAX_TOKENS)
    choice = made["choices"][0]
    return Reply(choice["message"]["content"] or "", choice["finish_reason"] == "stop")


def is_right(question: Question, answer: Reply) -> bool:
    """Return whether a reply holds a gold answer."""
    return bool(judged(question, answer.text, CONTAINS))


def table(
    questions: dict[str, list[Question]],
    replies: dict[str, list[Reply]],
    base: dict[str, list[Reply]],
) -> Iterator[str]:
    """Yield the rows of one model."""
    columns = [
        "n",
        "right",
        "wrong",
        "declined",
        "marked",
        "kept",
        "wrong-left",
        "over-refusal",
        "ended",
        "loops",
    ]
    yield f"| set | {' | '.join(columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for name, rows in questions.items():
        right = [is_right(q, a) for q, a in zip(rows, replies[name], strict=True)]
        right_before = [is_right(q, a) for q, a in zip(rows, base[name], strict=True)]
        declined = [declines(answer.text) for answer in replies[name]]
        wrong = [not r and not d for r, d in zip(right, declined, strict=True)]
        declined_before = [declines(answer.text) for answer in base[name]]
        wrong_before = [not r and not d for r, d in zip(right_before, declined_before, strict=True)]
        marked = sum(is_marked(answer.text) for answer in replies[name])
        kept = sum(r and b for r, b in zip(right, right_before, strict=True))
        refused = sum(d and b for d, b in zip(declined, right_before, strict=True))
        yield (
            f"| {name} | {len(rows)} | {sum(right)} | {sum(wrong)} | {sum(declined)} | {marked} "
            f"| {share(kept, sum(right_before))} | {share(sum(wrong), sum(wrong_before))} "
            f"| {share(refused, sum(right_before))} | {endings(replies[name])} |"
        )
    requested = replies["requests"]
    refusals = sum(declines(answer.text) for answer in requested)
    marked = sum(is_marked(answer.text) for answer in requested)
    yield (
        f"| requests | {len(requested)} | | | {refusals} | {marked} | | | "
        f"| {endings(requested)} |\n"
    )


def share(part: int, whole: int) -> str:
    """Return a share with two decimals; empty where there is nothing to take a share of."""
    return f"{part / whole:.2f}" if whole else ""


def endings(replies: Sequence[Reply]) -> str:
    """Return the share of turns that ended, and the number of loops, as two cells."""
    ended = sum(answer.ended for answer in replies) / len(replies)
    return f"{ended:.3f} | {sum(answer.loops for answer in replies)}"


if __name__ == "__main__":
    main()
