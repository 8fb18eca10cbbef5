"""Does a written file decline as the run did? It is measured where people will run it.

The run's held-out questions are asked in llama-cpp-python alone, in the form of the file's own
template: a chat model gets the bare question in a user's turn, a base model the bare prompt. The
reference is the adapter as the run made it: the same client with the base's file and the adapter
beside it. Nobody checked the run's answers, so each counts as right with its confidence.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError
from selfloop_plugins._shared.held_out import is_held_out, p_correct, telling_outcomes
from selfloop_plugins._shared.probability import weighted_share
from selfloop_plugins._shared.prompt_files import PROMPTS

from selfloop import History, progress
from selfloop.config.prompts import Prompts
from selfloop.errors import MissingExtraError, ModelError
from selfloop.evaluation.gold import correct, match_named
from selfloop.text.answers import declines

TOLERANCE = 0.05  # by which a rate may be off, either way
MIN_QUESTIONS = 20  # with fewer, one answer is worth more than the tolerance
MAX_CHARACTERS = 500  # of a question that is asked: it has to fit into CONTEXT
CONTEXT = 2048  # tokens
MAX_REPLY_TOKENS = 48  # of a chat model, as in the gate
MAX_ANSWER_TOKENS = 16  # of a base model
# types that keep more of a tune, each after those that keep less
FINER_TYPES = ("q6_k", "q8_0", "bf16")
ROUNDING = 1e-9  # of a difference of two shares
# how tables and messages call the rates
LABELS = {
    "kept": "right answers still given",
    "declined": "wrong answers declined",
    "refused": "right answers declined",
}

Ask = Callable[[str], str]
"""Returns a model's reply to a bare question."""

_holds = match_named("contains")


class HeldOut(NamedTuple):
    """A question that was never trained on, the run's answer, and how likely it is correct."""

    question: str
    answer: str
    p_correct: float


class ModelFiles(NamedTuple):
    """The files that make a model: one, or a base and the adapter beside it."""

    model: Path
    adapter: Path | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of the held-out answers, each weighed by how likely it is right, or wrong.

    kept      share of the right answers that are still given
    declined  share of the wrong answers in whose place the model declines
    refused   share of the right answers in whose place the model declines
    """

    kept: float
    declined: float
    refused: float


class Difference(NamedTuple):
    """A rate that is further off than it may be."""

    rate: str
    written: float
    reference: float


@dataclass(frozen=True, slots=True)
class Check:
    """The rates of the files that were written, and those of base and adapter.

    questions  how many were asked of each
    right      how many of the run's answers to them are right, as expected
    chat       whether they were asked in a user's turn
    reference  None where base and adapter themselves were written
    types      the formats in which the adapted weights were written
    """

    questions: int
    right: float
    chat: bool
    written: Rates
    reference: Rates | None
    types: frozenset[str] = frozenset()

    @property
    def says_little(self) -> bool:
        """Return whether there were too few questions to refuse anything."""
        return self.questions < MIN_QUESTIONS

    @property
    def differences(self) -> list[Difference]:
        """Return the rates that are off by more than the tolerance, and by more than one answer."""
        if self.reference is None:
            return []
        differences = []
        for rate in LABELS:
            written, reference = getattr(self.written, rate), getattr(self.reference, rate)
            weight = self.questions - self.right if rate == "declined" else self.right
            # one answer may be worth more than the tolerance, and rounding alone turns one
            allowed = max(TOLERANCE, 1 / max(weight, 1.0))
            if abs(written - reference) > allowed + ROUNDING:
                differences.append(Difference(rate, written, reference))
        return differences

    @property
    def refusal(self) -> str:
        """Return why the export is refused, with the facts and a remedy; else an empty string."""
        if self.says_little or not self.differences:
            return ""
        rates = ", ".join(
            f"{LABELS[rate]} {written:.0%}, not {reference:.0%}"
            for rate, written, reference in self.differences
        )
        return (
            f"the file answers otherwise than base and adapter: {rates} (of {self.questions} "
            f"held-out questions). {_advice(finer_types(self.types))} the adapter apart (--to "
            "adapter), or write it anyway with --force"
        )

    def note(self) -> str:
        """Return a sentence on how it was measured."""
        form = "in a user's turn" if self.chat else 'behind "Question:"'
        little = " So few say little." if self.says_little else ""
        return (
            f"Measured in llama-cpp-python alone, on {self.questions} held-out questions, asked "
            f"bare {form}.{little}"
        )

    def lines(self) -> list[str]:
        """Return the figures for a terminal."""
        lines = [self.note()]
        for rate, label in LABELS.items():
            line = f"  {label}: {getattr(self.written, rate):.0%}"
            if self.reference is not None:
                line += f" (base and adapter: {getattr(self.reference, rate):.0%})"
            lines.append(line)
        return lines

    def plain(self) -> dict[str, Any]:
        """Return the figures as data."""
        return {
            "questions": self.questions,
            "chat": self.chat,
            "written": asdict(self.written),
            "reference": asdict(self.reference) if self.reference else None,
            "refusal": self.refusal,
        }


class NotMeasured(NamedTuple):
    """The reason why an export was not measured, as a clause."""

    reason: str

    def lines(self) -> list[str]:
        """Return the reason for a terminal."""
        return [f"Not measured: {self.reason}."]

    def plain(self) -> dict[str, Any]:
        """Return the reason as data."""
        return {"questions": 0, "reason": self.reason}


def finer_types(types: frozenset[str]) -> tuple[str, ...]:
    """Return the types that keep more of a tune than the coarsest of `types`, coarsest first."""
    return FINER_TYPES[min(map(_precision, types), default=0) :]


def _precision(kind: str) -> int:
    """Return how many of FINER_TYPES keep no more of a tune than a format does."""
    if kind.startswith(("f", "bf")):
        return len(FINER_TYPES)
    for count, finer in enumerate(FINER_TYPES, start=1):
        if kind.startswith(finer[:2]):
            return count
    return 0


def _advice(finer: Sequence[str]) -> str:
    """Return the beginning of a sentence on how to keep more of a tune."""
    if not finer:
        return "Keep"
    *others, last = finer
    if not others:
        return f"Give --type {last}, or keep"
    return (
        f"Give --type {', '.join(others)} or {last} (each keeps more than the one before), or keep"
    )


def held_out_questions(history: History, limit: int) -> list[HeldOut]:
    """Return at most `limit` held-out questions, first those of the tuner's gate."""
    held_out = [
        HeldOut(outcome.question.text, outcome.answer.strip(), p_correct(outcome))
        for outcome in telling_outcomes(history)
        if is_held_out(outcome.question)
    ]
    # the other half set the decline bias
    ordered = held_out[::2] + held_out[1::2]
    return [asked for asked in ordered if len(asked.question) <= MAX_CHARACTERS][:limit]


def check(
    written: ModelFiles,
    reference: ModelFiles | None,
    held_out: Sequence[HeldOut],
    *,
    chat: bool,
    types: frozenset[str] = frozenset(),
) -> Check:
    """Return the rates of the written files and of the reference on the held-out questions.

    Raises ModelError for files that llama.cpp cannot run, MissingExtraError without it.
    """
    return Check(
        questions=len(held_out),
        right=sum(asked.p_correct for asked in held_out),
        chat=chat,
        written=_measure("the written file", written, held_out, chat=chat),
        reference=reference and _measure("base and adapter", reference, held_out, chat=chat),
        types=types,
    )


def _measure(name: str, files: ModelFiles, held_out: Sequence[HeldOut], *, chat: bool) -> Rates:
    with untouched_client(files, chat=chat) as ask:
        asked = progress.counted(f"asking {name}", held_out, "questions", len(held_out))
        replies = [ask(question.question) for question in asked]
    return rates(held_out, replies, chat=chat)


def rates(held_out: Sequence[HeldOut], replies: Sequence[str], *, chat: bool) -> Rates:
    """Return the rates of the replies to these questions.

    A chat model's reply gives an answer if it holds it; a base model's has to be the same.
    """
    gives = _holds if chat else correct
    right = [asked.p_correct for asked in held_out]
    wrong = [1 - chance for chance in right]
    is_declined = [declines(reply) for reply in replies]
    is_given = [
        gives(reply, [asked.answer]) for asked, reply in zip(held_out, replies, strict=True)
    ]
    return Rates(
        kept=weighted_share(right, is_given),
        declined=weighted_share(wrong, is_declined),
        refused=weighted_share(right, is_declined),
    )


@contextmanager
def untouched_client(files: ModelFiles, *, chat: bool) -> Iterator[Ask]:
    """Give a function that asks llama-cpp-python's own client, greedily.

    Raises ModelError where it cannot run the files, MissingExtraError where it is not installed.
    """
    try:
        from selfloop_plugins.backends.llama_cpp.plain import PlainLlama
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            str(error.name), "llamacpp", "Measuring an export in llama.cpp"
        ) from error
    try:
        client = PlainLlama(
            str(files.model),
            lora_path=str(files.adapter) if files.adapter else None,
            lora_scale=files.scale,
            n_ctx=CONTEXT,
            verbose=False,
        )
        with closing(client):
            yield partial(_chat_reply if chat else _base_answer, client)
    except (ValueError, RuntimeError, TemplateError) as error:
        raise ModelError(
            f"llama-cpp-python cannot run {files.model.name}: {error}. To write the export "
            "unmeasured, give --questions 0"
        ) from error


def _chat_reply(client: Any, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    reply = client.create_chat_completion(messages, temperature=0.0, max_tokens=MAX_REPLY_TOKENS)
    return (reply["choices"][0]["message"]["content"] or "").strip()


def _base_answer(client: Any, question: str) -> str:
    prompt = Prompts([PROMPTS]).render("tune_bare", chat=False, question=question)
    answer = client(prompt, temperature=0.0, max_tokens=MAX_ANSWER_TOKENS, stop=["\n"])
    return str(answer["choices"][0]["text"]).strip()
