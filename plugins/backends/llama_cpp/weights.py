"""The working copy: the same model in the format that this machine computes fastest with (option
`weights`).

Files are shipped in formats that take little space. In a batch another one may be two or three
times as fast: BF16 where the processor multiplies it, Q4_0 or Q8_0 elsewhere. `auto` measures that
once for each file, processor, number of threads and llama.cpp; a copy is made once, by llama.cpp's
own function, and kept:

    <cache>/working/<sha256 of the file>-<llama.cpp>/bf16.gguf     the copy bf16.json     written
                                                     last: its sha256, and what it costs
                                                     choice-*.json what `auto` measured on a
                                                     processor

What a copy costs in fidelity is measured when it is made, by `Fidelity`.
"""

import json
import logging
import platform
import shutil
import statistics
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import psutil
from selfloop_plugins import models

from selfloop import progress
from selfloop.errors import ModelError
from selfloop.records import Completion, Continuation, Request, Sampling
from selfloop.storage import atomic
from selfloop.storage.plain_json import read_object

from . import Weights, context
from .backend import LlamaCpp
from .cache import WANTED, Token
from .model import Model, lib
from .requantise import rewritten
from .yardstick import QUESTIONS, TEXT


@dataclass(frozen=True, slots=True)
class Format:
    """llama.cpp's number of a format, and about how many bytes a weight takes in it."""

    ftype: int
    bytes: float


# The most faithful first: of formats that are about as fast the first is taken.
FORMATS: Mapping[str, Format] = {
    "bf16": Format(32, 2.0),
    "f16": Format(1, 2.0),
    "q8_0": Format(7, 1.07),
    "q4_0": Format(2, 0.62),
}
GAIN = 1.1  # what a format must gain to be worth a copy, or to be preferred to a more faithful one
# of a measurement: each round at least so many calls and so long
CALLS, SECONDS, ROUNDS = 3, 1.0, 2

_log = logging.getLogger("selfloop.models")


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far a copy is from the shipped file.

    `shift` is the mean |change| of a token's log-probability on a fixed text, in nats; `changed`
    counts greedy answers that differ, of `questions`.
    """

    shift: float
    changed: int
    questions: int

    def __str__(self) -> str:
        return f"mean |change of log-probability| {self.shift:.3f}, {self.changed} of {self.questions} answers differ"


@dataclass(frozen=True, slots=True)
class Working:
    """The file to load.

    `format` is "shipped" or a format's name; `speeds` are tokens/s as `auto` measured them.
    """

    path: Path
    format: str
    fidelity: Fidelity | None = None
    speeds: Mapping[str, float] | None = None

    @property
    def about(self) -> str:
        """Return what to keep with a run."""
        return f"working copy in {self.format}: {self.fidelity}" if self.fidelity else self.format


def working(shipped: Path, weights: Weights, threads: int | None = None) -> Working:
    """Return the file to load for the option `weights`, made now if it is not there yet.

    Raises ModelError for a copy that cannot be made or does not fit memory or disk; `auto` leaves
    such formats out.
    """
    if weights == "shipped":
        return Working(shipped, "shipped")
    threads = threads or context.cores()
    copies = Copies(shipped, threads)
    with models.exclusive("a working copy", copies.folder / "lock", ", or weights: shipped"):
        return copies.fastest() if weights == "auto" else copies.get(weights)


class Copies:
    """The copies of one shipped file."""

    def __init__(self, shipped: Path, threads: int) -> None:
        self.shipped, self.threads = shipped, threads
        self.folder = (
            models.cache_folder() / "working" / f"{models.sha256(shipped)[:16]}-{lib.__version__}"
        )
        model = Model(shipped)
        self._parameters = model.parameters
        self._ftype = model.meta("general.file_type")
        model.close()

    def get(self, name: str) -> Working:
        """Return a copy, made and measured if it is not there."""
        if str(FORMATS[name].ftype) == self._ftype:
            return Working(self.shipped, "shipped")
        path, record = self._paths(name)
        if known := self._known(name):
            return Working(path, name, known)
        if record.exists() or not path.exists():  # damaged, or not there
            self._refuse_too_large(name)
            self._make(name)
        with progress.task(f"comparing the working copy in {name}"):
            fidelity = compare(self.shipped, path, self.threads)
        atomic.write_text(
            record, json.dumps({"sha256": models.sha256(path), "fidelity": asdict(fidelity)})
        )
        _log.info("working copy %s: %s", path, fidelity)
        return Working(path, name, fidelity)

    def _known(self, name: str) -> Fidelity | None:
        """Return what a copy costs, if it is there and whole."""
        path, record = self._paths(name)
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = read_object(record)
            if models.sha256(path) == known["sha256"]:
                return Fidelity(**known["fidelity"])
        return None

    def fastest(self) -> Working:
        """Return the shipped file or the copy that is the fastest in a batch, as measured once on this machine."""
        choice = self.folder / f"choice-{_machine(self.threads)}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            return self._chosen(read_object(choice))
        _log.info("measuring once which format is the fastest here for %s", self.shipped.name)
        there = {name for name in FORMATS if self._paths(name)[0].exists()}
        files = {"shipped": self.shipped} | self._candidates()
        found: dict[str, float] = {}
        with progress.task("measuring formats", ROUNDS * len(files), "measurements") as task:
            for _ in range(ROUNDS):
                for name, path in files.items():
                    found[name] = max(found.get(name, 0.0), speed(path, self.threads))
                    task.advance()
        best = pick(found)
        for name in set(files) - there - {"shipped", best}:
            self._paths(name)[0].unlink()
        _log.info(
            "tokens/s: %s; taking %s", ", ".join(f"{n} {s:.0f}" for n, s in found.items()), best
        )
        working = self._chosen({"format": best, "speeds": found})
        atomic.write_text(choice, json.dumps({"format": best, "speeds": found}))
        return working

    def _chosen(self, choice: dict[str, object]) -> Working:
        name, speeds = str(choice["format"]), choice["speeds"]
        assert isinstance(speeds, dict)
        if name == "shipped":
            return Working(self.shipped, name, speeds=speeds)
        copy = self.get(name)
        return Working(copy.path, copy.format, copy.fidelity, speeds)

    def _candidates(self) -> dict[str, Path]:
        """Return copies in all formats that are not the file's own, keep about as many bits, and fit."""
        found: dict[str, Path] = {}
        for name, format in FORMATS.items():
            if (
                str(format.ftype) == self._ftype
                or self._size(name) < 0.8 * self.shipped.stat().st_size
            ):
                continue
            path, _ = self._paths(name)
            try:
                self._refuse_too_large(name)
                if not path.exists():
                    self._make(name)
            except ModelError as error:
                _log.info("left out %s: %s", name, error)
            else:
                found[name] = path
        return found

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self.folder / f"{name}.gguf", self.folder / f"{name}.json"

    def _size(self, name: str) -> int:
        return int(self._parameters * FORMATS[name].bytes)

    def _refuse_too_large(self, name: str) -> None:
        size, free = self._size(name), psutil.virtual_memory().available
        advice = "Set weights: shipped"
        if size > 0.8 * free:
            need = f"a working copy in {name} takes about {size / 1e9:.1f} GB"
            raise ModelError(
                f"{need}, and {free / 1e9:.1f} GB of memory are free. {advice}, or close other "
                "programs"
            )
        disk = shutil.disk_usage(self.folder).free
        if 1.1 * size > disk:
            raise ModelError(
                f"a working copy in {name} takes about {size / 1e9:.1f} GB, and {disk / 1e9:.1f} "
                "GB are free in "
                f"{self.folder}. {advice}, or set {models.CACHE_VARIABLE} to a folder on a larger disk"
            )

    def _make(self, name: str) -> None:
        """Put the copy at its place, whole."""
        path, record = self._paths(name)
        record.unlink(missing_ok=True)
        _log.info("writing a working copy of %s in %s", self.shipped.name, name)
        with atomic.replacing(path) as part:
            with progress.task(f"a working copy in {name}"):
                wrong = rewritten(
                    self.shipped, part, FORMATS[name].ftype, self.threads, self._size(name)
                )
            if wrong:
                raise ModelError(
                    f"llama.cpp cannot write {self.shipped} in {name}: {wrong}. Set weights: "
                    "shipped"
                )


def pick(speeds: Mapping[str, float]) -> str:
    """Return the fastest format, a more faithful one if that is about as fast, and the shipped file before both."""
    best = max(speeds.values())
    return next(
        name for name in ("shipped", *FORMATS) if name in speeds and speeds[name] * GAIN >= best
    )


def speed(path: Path, threads: int) -> float:
    """Return tokens/s of a batch that is full, once it runs."""
    model = Model(path)
    cache = context.open_cache(model, context.Size(4096, WANTED, 0), threads)
    sequences = [cache.take() for _ in range(WANTED)]
    took: list[float] = []
    try:
        while len(took) < CALLS + 1 or (sum(took) < SECONDS and len(took) < 4096 // WANTED):
            start = time.perf_counter()
            cache.decode([Token(100 + s, len(took), s, True) for s in sequences])
            took.append(time.perf_counter() - start)
    finally:
        cache.close()
        model.close()
    return WANTED / statistics.median(took[1:])


def compare(shipped: Path, copy: Path, threads: int) -> Fidelity:
    """Return how far a copy is from the shipped file, on a fixed text and `QUESTIONS`."""
    (logs, answers), (other_logs, other_answers) = (
        _sayings(path, threads) for path in (shipped, copy)
    )
    shift = statistics.fmean(abs(a - b) for a, b in zip(logs, other_logs, strict=True))
    changed = sum(a != b for a, b in zip(answers, other_answers, strict=True))
    return Fidelity(shift, changed, len(answers))


def _sayings(path: Path, threads: int) -> tuple[tuple[float, ...], list[str]]:
    """Return the log-probabilities of the text's tokens, and the answers to the questions."""
    backend = LlamaCpp(path, threads=threads)
    try:
        (logs,) = backend.loglikelihood([Continuation("", TEXT)])
        if not isinstance(logs, tuple):
            raise logs
        short = Sampling(max_tokens=12, stop=("\n",))
        requests = [Request(f"Question: {question}\nAnswer:", short) for question in QUESTIONS]
        generated = progress.counted(
            f"answers of {path.name}", backend.generate(requests), "answers", len(requests)
        )
        answers = {i: c.text.strip() for i, c in generated if isinstance(c, Completion)}
    finally:
        backend.close()
    return logs, [answers.get(i, "") for i in range(len(requests))]


def _machine(threads: int) -> str:
    """Return a short name for this processor and number of threads."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    about = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    text = "\n".join([platform.machine(), platform.processor(), str(threads), *about])
    return blake2b(text.encode(), digest_size=6).hexdigest()
