"""A component with a fault fails the contract of its kind, and the message names the fault."""

import inspect
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import click
import pytest

from selfloop import Claim, Completion, Component, Message, Question, Score, Verdict
from selfloop.errors import RecipeError
from selfloop.records import Adapter
from selfloop.testing import (
    BackendContract,
    CommandContract,
    CriticContract,
    DetectorContract,
    FewShotContract,
    ObserverContract,
    QuestionSourceContract,
    ScorerContract,
    ScriptedBackend,
    TunerContract,
)


@pytest.fixture(autouse=True)
def _in_a_folder_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the planted faults write into the current folder: it must not be the repository."""
    monkeypatch.chdir(tmp_path)


def failures(contract: type[Any]) -> Iterator[str]:
    """Run a contract's tests as pytest would, each on a new case; yield the failures' messages."""
    for name in dir(contract):
        if not name.startswith("test_"):
            continue
        method = getattr(contract(), name)
        with TemporaryDirectory() as home:
            own = (
                {"tmp_path": Path(home)}
                if "tmp_path" in inspect.signature(method).parameters
                else {}
            )
            try:
                method(**own)
            except pytest.skip.Exception:
                continue
            # a component may raise anything, and its contract must report it
            except BaseException as error:  # noqa: BLE001
                yield f"{name}: {type(error).__name__}: {error}"


def case(contract: type[Any], build: Callable[..., Any], **fields: Any) -> type[Any]:
    """Return a contract on a component that `build` makes."""
    component = Component(
        **{"name": "planted", "build": build, "doc": "a component with a fault"} | fields
    )
    return type("Planted", (contract,), {"component": component})


# Every kind: a sound component, then what a fault puts in the place of a method, or of the whole
# class.


class Detector:
    """Confidence is a half, of nothing none."""

    def verify(self, claims: Any, verify_context: Any) -> Any:
        return [self.judge(claim) for claim in claims]

    def judge(self, claim: Claim) -> Verdict:
        if not claim.answer.text:
            return Verdict("planted", None, "no answer")
        return Verdict("planted", 1 / len(claim.answer.text))


def answer(claim: Claim, confidence: Any) -> Verdict:
    return Verdict("planted", confidence, claim.answer.text[:5])


class Counting(Detector):
    def __init__(self) -> None:
        self.calls = 0

    def verify(self, claims: Any, verify_context: Any) -> Any:
        self.calls += 1
        return [answer(claim, 1 / self.calls) for claim in claims]


class Typeless(Detector):
    def __init__(self, words=3) -> None:
        self.words = words


def changing(claims: list[Any]) -> list[Verdict]:
    found = [answer(claim, 0.5) for claim in claims]
    claims.clear()
    return found


def writing_into(claims: list[Claim]) -> list[Verdict]:
    for claim in claims:
        object.__setattr__(claim.answer, "text", claim.answer.text.strip() + " ")
    return [answer(claim, 0.5) for claim in claims]


DETECTORS: dict[str, tuple[Any, str]] = {
    "one too few": (
        lambda claims, told: [answer(c, 0.5) for c in claims][1:],
        "gave 5 results for 6",
    ),
    "one for all": (lambda claims, told: [Verdict("planted", 0.5)], "gave 1 results for 0"),
    "nothing": (lambda claims, told: None, "gave None, not a list"),
    "confidence is NaN": (
        lambda claims, told: [answer(c, float("nan")) for c in claims],
        "is nan, not in [0, 1]",
    ),
    "confidence above 1": (
        lambda claims, told: [answer(c, 1.5) for c in claims],
        "is 1.5, not in [0, 1]",
    ),
    "confidence is text": (
        lambda claims, told: [answer(c, "high") for c in claims],
        "whose confidence is 'high'",
    ),
    "order changed": (
        lambda claims, told: sorted(
            (answer(c, 1 / (1 + len(c.answer.text))) for c in claims), key=lambda v: v.reason
        ),
        "or on their order",
    ),
    "depends on batch mates": (
        lambda claims, told: [answer(c, 1 / len(claims)) for c in claims],
        "claims beside it",
    ),
    "raises on empty text": (
        lambda claims, told: [answer(c, 1 / len(c.answer.text)) for c in claims],
        "ZeroDivision",
    ),
    "changes its list": (lambda claims, told: changing(claims), "changed its argument"),
    "changes a record": (
        lambda claims, told: writing_into(claims),
        "changed the items of its tuple",
    ),
    "a set, which has no order": (
        lambda claims, told: {answer(c, 0.5) for c in claims},
        "not a list",
    ),
    "abstains without reason": (
        lambda claims, told: [Verdict("planted", None) for _ in claims],
        "without a reason",
    ),
    "wrong record": (lambda claims, told: [0.5 for _ in claims], "gave a float, not a Verdict"),
    "at random": (
        lambda claims, told: [answer(c, random.random()) for c in claims],
        "depends on the claims beside",
    ),
    "capability that it does not need": (
        lambda claims, told: [
            answer(c, 0.5) for c in claims if told.backend.loglikelihood([]) == []
        ],
        "does not say needs={'loglikelihood'}",
    ),
    "state between calls": (Counting, "another verdict the second time"),
    "untyped option": (Typeless, "option words has no type"),
    "no method": (object, "it has no method verify()"),
}


class Scorer:
    """Longer is better."""

    def score(self, questions: Any, ask_context: Any) -> Any:
        return [Score("planted", float(len(q.text))) for q in questions]


class Remembering(Scorer):
    def __init__(self) -> None:
        self.had: set[str] = set()

    def score(self, questions: Any, ask_context: Any) -> Any:
        found = [Score("planted", float(q.text not in self.had)) for q in questions]
        self.had |= {q.text for q in questions}
        return found


SCORERS: dict[str, tuple[Any, str]] = {
    "one too few": (
        lambda qs, told: [Score("planted", 1.0) for _ in qs][1:],
        "gave 7 results for 8",
    ),
    "one too many": (lambda qs, told: [Score("planted", 1.0) for _ in (*qs, 1)], "results for 0"),
    "nothing": (lambda qs, told: None, "gave None, not a list"),
    "score is NaN": (
        lambda qs, told: [Score("planted", float("nan")) for _ in qs],
        "is nan, no number",
    ),
    "score has no bound": (
        lambda qs, told: [Score("planted", float("inf")) for _ in qs],
        "is inf, no number",
    ),
    "score is text": (
        lambda qs, told: [Score("planted", "good") for _ in qs],
        "whose value is 'good'",
    ),  # type: ignore[arg-type]
    "wrong record": (lambda qs, told: [1.0 for _ in qs], "gave a float, not a Score"),
    "order changed": (
        lambda qs, told: [
            Score("planted", float(len(q.text))) for q in sorted(qs, key=lambda q: q.text)
        ],
        "not come in the order",
    ),
    "raises on empty text": (lambda qs, told: [Score(q.text[0], 1.0) for q in qs], "IndexError"),
    "changes its list": (
        lambda qs, told: [Score("planted", 1.0) for _ in list(qs) if qs.pop()],
        "changed its argument",
    ),
    "at random": (
        lambda qs, told: [Score("planted", random.random()) for _ in qs],
        "order of the questions",
    ),
    "capability that it does not need": (
        lambda qs, told: [Score("planted", 1.0) for _ in qs if not told.backend.hidden_states([])],
        "does not say needs={'hidden_states'}",
    ),
    "state between calls": (Remembering, "another score the second time"),
    "no method": (Detector, "it has no method score()"),
}


class Critic:
    """Says that the answer is wrong."""

    revise_prompt = "revise"

    def critique(self, claims: Any, verify_context: Any) -> Any:
        return [Completion(f"{claim.answer.text!r:.20} is wrong.") for claim in claims]


class Mute(Critic):
    revise_prompt = None  # type: ignore[assignment]


class Misnamed(Critic):
    revise_prompt = "revize"


class Forgetful(Critic):
    revise_prompt = "critique"


class Growing(Critic):
    def __init__(self) -> None:
        self.calls = count()

    def critique(self, claims: Any, verify_context: Any) -> Any:
        number = next(self.calls)
        return [Completion(f"wrong {number}") for _ in claims]


CRITICS: dict[str, tuple[Any, str]] = {
    "one too few": (
        lambda claims, told: [Completion("wrong") for _ in claims][1:],
        "gave 5 results for 6",
    ),
    "nothing": (lambda claims, told: None, "gave None, not a list"),
    "None where it has nothing to say": (
        lambda claims, told: [None for _ in claims],
        "NoneType, not a Completion",
    ),
    "wrong record": (
        lambda claims, told: ["wrong" for _ in claims],
        "gave a str, not a Completion",
    ),
    "text is no text": (
        lambda claims, told: [Completion(7) for _ in claims],  # type: ignore[arg-type]
        "whose text is 7",
    ),
    "order changed": (
        lambda claims, told: [
            Completion(c.answer.text[:5]) for c in sorted(claims, key=lambda c: c.answer.text)
        ],
        "or on their order",
    ),
    "depends on batch mates": (
        lambda claims, told: [Completion(str(len(claims))) for _ in claims],
        "claims beside it",
    ),
    "raises on empty text": (
        lambda claims, told: [Completion(c.answer.text.split()[0]) for c in claims],
        "IndexError",
    ),
    "raises without samples": (lambda claims, told: [c.samples[0] for c in claims], "IndexError"),
    "changes its list": (
        lambda claims, told: [claims.pop().answer for _ in list(claims)],
        "changed its argument",
    ),
    "no revise": (Mute, "it has no `revise_prompt`"),
    "a prompt that there is not": (Misnamed, "there is no prompt 'revize'"),
    "state between calls": (Growing, "another critique the second time"),
    "no method": (Scorer, "it has no method critique()"),
}


class FewShotSelector:
    """Shows nothing but the question."""

    def build_prompts(self, questions: Any, verify_context: Any) -> Any:
        return [verify_context.prompt("answer", question=question) for question in questions]


class Alternating(FewShotSelector):
    def __init__(self) -> None:
        self.calls = count()

    def build_prompts(self, questions: Any, verify_context: Any) -> Any:
        number = next(self.calls)
        return [f"{number} {question}" for question in questions]


DEMONSTRATORS: dict[str, tuple[Any, str]] = {
    "one too few": (lambda qs, told: list(qs)[1:], "gave 5 prompts for 6 questions"),
    "nothing": (lambda qs, told: None, "gave None, not a list"),
    "a text for all": (lambda qs, told: "Answer in a word.", "not a list"),
    "no prompt": (lambda qs, told: [7 for _ in qs], "neither text nor a tuple of Message"),
    "a list of messages": (
        lambda qs, told: [[Message("user", q)] for q in qs],
        "neither text nor a tuple",
    ),
    "messages that are mappings": (
        lambda qs, told: [({"role": "user", "content": q},) for q in qs],
        "neither text",
    ),
    "without the question": (lambda qs, told: ["Answer:" for _ in qs], "does not have it"),
    "question as a template": (
        lambda qs, told: [f"{q}\nAnswer:".format(answer="") for q in qs],
        "does not have it",
    ),
    "order changed": (lambda qs, told: sorted(qs), "does not have it"),
    "depends on batch mates": (
        lambda qs, told: ["\n".join((*qs, q)) for q in qs],
        "questions beside it",
    ),
    "raises on odd text": (lambda qs, told: [q.split()[1] + q for q in qs], "IndexError"),
    "changes its list": (lambda qs, told: [qs.pop(0) for _ in list(qs)], "changed its argument"),
    "takes it for a list": (lambda qs, told: qs.copy(), "took it for a list"),
    "at random": (
        lambda qs, told: [f"{random.random()} {q}" for q in qs],
        "beside it, or on their order",
    ),
    "state between calls": (Alternating, "another prompt the second time"),
}


class Source:
    """Asks for capitals."""

    def ask(self, ask_context: Any) -> Any:
        return [
            Question(f"What is the capital of {country}?", "planted")
            for country in ("Egypt", "Peru")
        ]


class Reading(Source):
    """Hands out a list, and forgets what it has handed out only when it is built anew."""

    def __init__(self) -> None:
        self.left = ["Who was it?", "Where was it?"]

    def ask(self, ask_context: Any) -> Any:
        return [
            Question(self.left.pop(), "planted") for _ in range(min(ask_context.n, len(self.left)))
        ]


def written(told: Any) -> list[str]:
    from selfloop import Request

    return [completion.text for _, completion in told.backend.generate([Request("Question:", n=6)])]


def asked(text: Any = "Who was it?", **fields: Any) -> list[Question]:
    return [Question(**{"text": text, "source": "planted"} | fields)]


def midway(told: Any) -> Iterator[Question]:
    yield asked()[0]
    raise RuntimeError("no more")


SOURCES: dict[str, tuple[Any, str]] = {
    "nothing": (lambda told: None, "gave None, not a list"),
    "text": (lambda told: ["Who was it?"], "gave a str, not a Question"),
    "a text for all": (lambda told: "Who was it?", "not a list"),
    "question without text": (lambda told: asked(" \n"), "a Question without text"),
    "text is no text": (lambda told: asked(7), "whose text is 7"),
    "nobody's question": (lambda told: asked(source=""), "does not say its `source`"),
    "a variant of nothing": (lambda told: asked(variant="reworded"), "go together"),
    "an unknown variant": (
        lambda told: asked(variant="longer", variant_of="Who?"),
        "whose variant is 'longer'",
    ),
    "a pattern that is none": (lambda told: asked(gold_pattern="(Cairo"), "no regular expression"),
    "raises midway": (midway, "RuntimeError: no more"),
    "at random": (lambda told: asked(f"Who was number {random.random()}?"), "another question"),
    "does not know round 1": (lambda told: asked(told.history.questions[-1]), "IndexError"),
    "only many": (lambda told: asked() if told.n > 1 else asked()[1], "IndexError"),
    "raises on a fragment": (
        lambda told: [Question(f"Who is {text.split()[-1]}?", "planted") for text in written(told)],
        "IndexError",
    ),
    "capability that it does not need": (
        lambda told: told.backend.loglikelihood([]) or asked(),
        "does not say needs",
    ),
    "state between calls": (Reading, "the second time"),
    "no method": (Critic, "it has no method ask()"),
}


class Tuner:
    """Writes what is believed as an adapter, a batch a belief; whole, or not at all."""

    name = "adapter.bin"

    def tune(self, tune_context: Any) -> Any:
        if not tune_context.history.beliefs:
            return None
        part = tune_context.folder / "part"
        with part.open("wb") as file:
            for number, belief in enumerate(tune_context.history.beliefs, start=1):
                file.write(belief.answer.encode())
                tune_context.on_batch(number, len(tune_context.history.beliefs), 1 / number)
        return self.end(part.replace(tune_context.folder / self.name))

    def end(self, path: Path) -> Any:
        return Adapter(str(path), sha256(path.read_bytes()).hexdigest(), 1)


class Told(Tuner):
    """Tells something else of how far it is."""

    def __init__(self, *heard: tuple[Any, ...]) -> None:
        self.heard = heard

    def tune(self, tune_context: Any) -> Any:
        for one in self.heard:
            tune_context.on_batch(*one)
        return None


class Half(Tuner):
    """Takes what it finds in its folder for what it has made before."""

    def tune(self, tune_context: Any) -> Any:
        path = tune_context.folder / self.name
        if not path.exists() and tune_context.history.beliefs:
            with path.open("wb") as file:
                for number, belief in enumerate(tune_context.history.beliefs, start=1):
                    file.write(belief.answer.encode())
                    tune_context.on_batch(number, len(tune_context.history.beliefs), 1 / number)
        return self.end(path) if path.exists() else None


class Stale(Tuner):
    """Keeps the adapter of its first tune."""

    def __init__(self) -> None:
        self.made: Any = None

    def tune(self, tune_context: Any) -> Any:
        self.made = self.made or super().tune(tune_context)
        return self.made


class Blind(Tuner):
    def tune(self, tune_context: Any) -> Any:
        return (
            super().tune(
                replace(
                    tune_context,
                    history=replace(
                        tune_context.history, outcomes=tune_context.history.outcomes[:1]
                    ),
                )
            )
            or 1 / 0
        )


class Grabbing(Tuner):
    def tune(self, tune_context: Any) -> Any:
        for attempt in tune_context.attempts:
            object.__setattr__(attempt, "decision", "declined")
        return None


class Noisy(Tuner):
    def end(self, path: Path) -> Any:
        path.write_bytes(random.randbytes(8))
        return super().end(path)


class Elsewhere(Tuner):
    def end(self, path: Path) -> Any:
        return super().end(path.replace(path.parent.parent / "elsewhere.bin"))


class Silent(Tuner):
    def tune(self, tune_context: Any) -> Any:
        raise RecipeError("")


def ending(end: Callable[[Path], Any]) -> type[Tuner]:
    return type("Ending", (Tuner,), {"end": staticmethod(end)})


TUNERS: dict[str, tuple[Any, str]] = {
    "no file": (
        ending(lambda path: Adapter(str(path.with_name("none")), "f00")),
        "file is not there",
    ),
    "another sha256": (
        ending(lambda path: Adapter(str(path), "f00")),
        "the adapter says sha256 f00",
    ),
    "a path alone": (ending(lambda path: str(path)), "gave a str, not an Adapter"),
    "scale is no number": (
        ending(lambda path: replace(Tuner().end(path), scale=float("nan"))),
        "scale is nan",
    ),
    "outside its folder": (Elsewhere, "is not in the tuner's folder"),
    "written half": (Half, "half of one"),
    "at random": (Noisy, "the same tuning gave adapters"),
    "the adapter of an earlier tune": (Stale, "is not in the tuner's folder"),
    "raises where nothing is believed": (Blind, "ZeroDivisionError"),
    "changes the attempts": (Grabbing, "changed the attempts"),
    "loss is NaN": (lambda: Told((1, 2, float("nan"))), "the loss is no number"),
    "more than all": (lambda: Told((3, 2, 0.5)), "done goes from 1 to 2"),
    "counts backwards": (lambda: Told((2, 2, 0.5), (1, 2, 0.5)), "counts backwards"),
    "refuses and does not say why": (Silent, "refuses without saying why"),
    "no method": (Source, "it has no method tune()"),
}


class Observer:
    """Writes the names of events into the run's folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "planted.txt"

    def on_event(self, event: Any) -> None:
        with self.path.open("a") as file:
            file.write(type(event).__name__)

    def close(self) -> None:
        pass


def observing(
    on_event: Callable[[Any, Any], Any], close: Callable[[Any], Any] = lambda self: None
) -> type[Observer]:
    return type("Observing", (Observer,), {"on_event": on_event, "close": close})


LEFT: list[Any] = []  # what an observer leaves behind, so that it is not collected


def raises_at(name: str) -> Callable[[Any, Any], None]:
    def on_event(self: Any, event: Any) -> None:
        if type(event).__name__ == name:
            raise RuntimeError(f"no {name}")

    return on_event


def start_a_thread(self: Any, event: Any) -> None:
    from threading import Event, Thread

    stop = Event()
    LEFT.append(stop)
    Thread(target=stop.wait, daemon=True, name="planted-thread").start()


def change(self: Any, event: Any) -> None:
    if hasattr(event, "attempt"):
        object.__setattr__(event.attempt, "reason", "changed")


def finish(self: Any, event: Any) -> None:
    self.file = None if type(event).__name__ == "RunEnded" else self.path.open("w")
    if self.file:
        self.file.close()


OBSERVERS: dict[str, tuple[Any, str]] = {
    "raises at a failure": (observing(raises_at("ComponentFailed")), "no ComponentFailed"),
    "raises at a batch": (observing(raises_at("TrainingStep")), "no TrainingStep"),
    "raises at a failed attempt": (
        observing(lambda self, e: len(getattr(e, "attempt", e).draft.text)),
        "AttributeErr",
    ),
    "changes an event": (observing(change), "on_event() changed the AttemptEnded"),
    "leaves a file open": (
        observing(lambda self, e: LEFT.append(self.path.open("a"))),
        "planted.txt",
    ),
    "leaves a thread": (observing(start_a_thread), "planted-thread"),
    "prints what the model wrote": (
        observing(lambda self, e: print(getattr(e, "attempt", None) and e.attempt.question.text)),
        "use selfloop.text.display.printable",
    ),
    "writes where it was called": (
        observing(lambda self, e: Path("log.txt").write_text("event")),
        "it left log.txt outside the run's folder",
    ),
    "cannot write what the model wrote": (
        observing(
            lambda self, e: self.path.write_text(
                str(getattr(e, "attempt", "") and e.attempt.question.text)
            )
        ),
        "UnicodeEncodeError",
    ),
    "cannot go on": (
        observing(lambda self, e: None, lambda self: self.path.mkdir()),
        "FileExistsError",
    ),
    "cannot be stopped early": (
        observing(finish, lambda self: getattr(self, "file", None) and 1 / 0),
        "ZeroDivisionError",
    ),
    "closed before it began": (observing(finish, lambda self: self.file), "AttributeError"),
    "no close": (
        type("Open", (), {"on_event": lambda self, event: None}),
        "it has no method close()",
    ),
}


def sampled(change: Callable[[Completion], Completion]) -> type[ScriptedBackend]:
    """Return a backend that gives other completions than the script says."""

    class Planted(ScriptedBackend):
        def generate(self, requests: Any) -> Iterator[Any]:
            for index, result in super().generate(requests):
                yield index, change(result) if isinstance(result, Completion) else result

    return Planted


def batched(change: Callable[[list[Any], list[Any]], Any]) -> type[ScriptedBackend]:
    """Return a backend that changes a whole batch by a function of requests and results."""

    class Planted(ScriptedBackend):
        def generate(self, requests: Any) -> Iterator[Any]:
            yield from change(requests, list(super().generate(requests)))

    return Planted


class Moody(ScriptedBackend):
    calls = 0

    def generate(self, requests: Any) -> Iterator[Any]:
        self.calls += 1
        return super().generate([replace(request, seed=self.calls) for request in requests])


class Vague(ScriptedBackend):
    def describe(self) -> Any:
        return replace(super().describe(), capabilities=frozenset({"logits"}))


class Strict(ScriptedBackend):
    def generate(self, requests: Any) -> Iterator[Any]:
        if any(len(r.prompt) > 10_000 for r in requests):
            raise ValueError("too long")
        return super().generate(requests)


class Shared(ScriptedBackend):
    def loglikelihood(self, pairs: Any) -> Any:
        return [
            tuple(value / len(pairs) for value in values) for values in super().loglikelihood(pairs)
        ]  # type: ignore[union-attr]


BACKENDS: dict[str, tuple[Any, str]] = {
    "one too few": (batched(lambda asked, found: found[1:]), "never came"),
    "one twice": (batched(lambda asked, found: [*found, *found[:1]]), "came twice"),
    "skip is not heard": (
        batched(
            lambda asked, found: ScriptedBackend().generate([replace(r, skip=()) for r in asked])
        ),
        "were not wanted, and came",
    ),
    "index of nothing": (
        batched(lambda asked, found: [(i + 1, one) for i, one in found]),
        "gave index 2 for 2",
    ),
    "text alone": (
        sampled(lambda one: one.text),  # type: ignore[arg-type,return-value]
        "gave a str, not a Completion",
    ),
    "depends on batch mates": (
        batched(
            lambda asked, found: [
                (i, replace(one, text=f"{one.text} {len(asked)}")) for i, one in found
            ]
        ),
        "alone and",
    ),
    "state between calls": (Moody, "alone and"),
    "log-probabilities are missing": (
        sampled(lambda one: replace(one, logprobs=one.logprobs[1:])),
        "log-probabilities",
    ),
    "probabilities as they are": (
        sampled(lambda one: replace(one, logprobs=(0.5,) * len(one.tokens))),
        "above 0",
    ),
    "log-probabilities are NaN": (
        sampled(lambda one: replace(one, logprobs=(float("nan"),) * len(one.tokens))),
        "no numbers",
    ),
    "more tokens than asked for": (
        sampled(lambda one: replace(one, tokens=(1,) * 9, logprobs=(-1.0,) * 9)),
        "9 tokens came where max_tokens is 6",
    ),
    "stop is not heard": (
        batched(lambda asked, _: ScriptedBackend().generate([_unstopped(r) for r in asked])),
        "with stop",
    ),
    "entropies always": (
        batched(
            lambda asked, found: ScriptedBackend().generate(
                [replace(r, entropy=True) for r in asked]
            )
        ),
        "come unasked for",
    ),
    "greedy by the seed": (
        batched(
            lambda asked, found: [
                (i, replace(one, text=f"{asked[i].seed} {one.text}")) for i, one in found
            ]
        ),
        "depends on the seed",
    ),
    "raises at a long prompt": (Strict, "ValueError: too long"),
    "an unknown capability": (Vague, "no capability is called logits"),
    "changes its list": (
        batched(lambda asked, found: [asked.pop() for _ in list(asked)] and found),
        "changed its argument",
    ),
    "likelihood depends on batch mates": (Shared, "depend on the pairs beside it"),
}


def _unstopped(request: Any) -> Any:
    return replace(request, sampling=replace(request.sampling, stop=()))


HELP = "Count the lines of FILE.\n\n\b\nExample:\n  selfloop planted notes.txt --twice"


def command(
    callback: Callable[..., Any] | None = None, *, help: str = HELP, name: str = "planted"
) -> click.Command:
    """Return a command; sound, if nothing else is said."""

    def sound(file: Path, twice: bool) -> None:
        from selfloop.text.display import printable

        if not file.is_file():
            raise RecipeError(f"no file {printable(str(file))}. Give the path of a text file.")
        click.echo(len(file.read_text().splitlines()) * (1 + twice))

    option = click.Option(["--twice"], is_flag=True, help="Count each line twice.")
    file = click.Argument(["file"], type=click.Path(path_type=Path))
    return click.Command(name, callback=callback or sound, help=help, params=[file, option])


def without_help() -> click.Command:
    made = command()
    made.params[1].help = None  # type: ignore[attr-defined]
    return made


def lax() -> click.Command:
    made = command(lambda **_: None)
    made.ignore_unknown_options = made.allow_extra_args = True
    made.params = []
    made.help = "Do it.\n\n\b\nExample:\n  selfloop planted"
    return made


class Touching(click.Command):
    def get_help(self, ctx: click.Context) -> str:
        Path("touched").write_text("")
        return super().get_help(ctx)


COMMANDS: dict[str, tuple[click.Command, str]] = {
    "no help": (command(help=""), "has no help"),
    "option without help": (without_help(), "has no help for --twice"),
    "no example": (command(help="Count the lines of FILE."), "has no example"),
    "example of another": (
        command(help=HELP.replace("loop planted", "loop other")),
        "has no example",
    ),
    "example that is refused": (
        command(help=HELP.replace("--twice", "--thrice")),
        "is refused: No such option",
    ),
    "example without its argument": (
        command(help=HELP.replace("notes.txt", "")),
        "is refused: Missing argument",
    ),
    "traceback for a file that is not there": (
        command(lambda file, twice: file.read_text()),
        "ends in a traceback",
    ),
    "traceback for an odd value": (
        command(lambda file, twice: {"notes.txt": 1}[file.name]),
        "KeyError",
    ),
    "prints its arguments": (
        command(lambda file, twice: print(file)),
        "use selfloop.text.display.printable",
    ),
    "hides a command": (
        command(name="run", help=HELP.replace("planted", "run")),
        "a command run of its own",
    ),
    "a name that is none": (command(name="Count Lines"), "is not of small letters"),
    "takes any option": (lax(), "takes any option"),
    "help that writes": (Touching("planted", help=HELP), "the help leaves files behind"),
}

KINDS: dict[str, tuple[type[Any], str, type[Any], dict[str, tuple[Any, str]]]] = {
    "detector": (DetectorContract, "verify", Detector, DETECTORS),
    "scorer": (ScorerContract, "score", Scorer, SCORERS),
    "critic": (CriticContract, "critique", Critic, CRITICS),
    "few_shot": (FewShotContract, "build_prompts", FewShotSelector, DEMONSTRATORS),
    "source": (QuestionSourceContract, "ask", Source, SOURCES),
    "tuner": (TunerContract, "tune", Tuner, TUNERS),
    "observer": (ObserverContract, "on_event", Observer, OBSERVERS),
}
PLANTED = [(kind, fault) for kind, (*_, faults) in KINDS.items() for fault in faults]


def planted(kind: str, fault: str) -> type[Any]:
    """Return the contract of a kind on a component with a fault in a method, or in the class."""
    contract, method, sound, faults = KINDS[kind]
    what = faults[fault][0]
    if not isinstance(what, type) and (kind != "tuner"):
        what = type("Faulty", (sound,), {method: lambda self, *args: faults[fault][0](*args)})
    return case(contract, what)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "fault"), PLANTED, ids=lambda part: part.replace(" ", "-"))
def test_a_fault_is_caught(kind: str, fault: str) -> None:
    said = list(failures(planted(kind, fault)))
    assert said, "nothing failed"
    assert any(KINDS[kind][3][fault][1] in one for one in said), said


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sound_passes(kind: str) -> None:
    contract, _, sound, faults = KINDS[kind]
    assert list(failures(case(contract, sound))) == []
    assert len(faults) >= 10


def backend_case(build: Callable[[], Any]) -> type[Any]:
    made = build()

    class Planted(BackendContract):
        def backend(self) -> Any:
            return made

    return Planted


@pytest.mark.parametrize("fault", BACKENDS)
def test_a_fault_of_a_backend_is_caught(fault: str) -> None:
    build, message = BACKENDS[fault]
    assert any(message in one for one in failures(backend_case(build))), list(
        failures(backend_case(build))
    )


def test_a_sound_backend_passes() -> None:
    assert list(failures(backend_case(ScriptedBackend))) == []


def command_case(made: click.Command) -> type[Any]:
    class Planted(CommandContract):
        command: ClassVar[click.Command] = made

    return Planted


@pytest.mark.parametrize("fault", COMMANDS)
def test_a_fault_of_a_command_is_caught(fault: str) -> None:
    made, message = COMMANDS[fault]
    said = list(failures(command_case(made)))
    assert any(message in one for one in said), said


def test_a_sound_command_passes() -> None:
    assert list(failures(command_case(command()))) == []
    assert list(failures(command_case(click.Group("many", commands=[_renamed()])))) == []


def _renamed() -> click.Command:
    return command(name="one", help=HELP.replace("planted", "many one"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"doc": ""}, "the Component has no doc"),
        ({"doc": "one\ntwo"}, "is more than one line"),
        ({"name": ""}, "has no name"),
        ({"needs": frozenset({"logprob"})}, "no capability is called logprob"),
    ],
)
def test_a_component_that_does_not_say_what_it_is(fields: dict[str, Any], message: str) -> None:
    assert any(message in one for one in failures(case(DetectorContract, Detector, **fields)))
