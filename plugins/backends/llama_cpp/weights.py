"""The working copy: the same model in the format that this machine computes fastest with (option
`weights`).

Files are shipped in formats that take little space. In a batch another one may be two or three
times as fast: BF16 where the processor multiplies it, Q4_0 or Q8_0 elsewhere. `auto` measures that
once for each file, processor, number of threads and llama.cpp. A copy is made once, by llama.cpp's
own function, and kept below <cache>/working/<sha256 of the file>-<llama.cpp>/:

    bf16.gguf       the copy
    bf16.json       written last: the copy's sha256, and how far it is from the shipped file
    choice-*.json   the speeds that `auto` measured on a processor

How far a copy is from the shipped file is measured when it is made (`Fidelity`).
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

from selfloop_plugins import models

from selfloop import progress, system
from selfloop.errors import ModelError
from selfloop.records import Completion, Continuation, Request, Sampling
from selfloop.storage import atomic
from selfloop.storage.plain_json import read_object
from selfloop.text.units import size

from . import Weights, context
from .backend import LlamaCpp
from .cache import MAX_LOGIT_ROWS, Token
from .model import Model, lib
from .reference_prompts import REFERENCE_QUESTIONS, REFERENCE_TEXT
from .requantise import requantise_file


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
MIN_SPEEDUP = 1.1  # of a copy over the shipped file, and of a format over a more faithful one
# of a measurement of speed: each round has at least so many calls and takes so long
MIN_CALLS, MIN_SECONDS, MEASURE_ROUNDS = 3, 1.0, 2
MEASURE_CELLS = 4096  # of the cache in a measurement
MAX_MEMORY_SHARE = 0.8  # of free memory that a copy may take
DISK_MARGIN = 1.1  # of the expected size: the space that must be free on the disk
MIN_SIZE_SHARE = 0.8  # of the shipped file's size: a smaller copy would keep fewer bits
MAX_ANSWER_TOKENS = 12  # of an answer that is compared

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
        shift = f"mean |change of log-probability| {self.shift:.3f}"
        return f"{shift}, {self.changed} of {self.questions} answers differ"


@dataclass(frozen=True, slots=True)
class ConvertedWeights:
    """The file to load.

    `format` is "shipped" or a format's name; `speeds` are tokens/s as `auto` measured them.
    """

    path: Path
    format: str
    fidelity: Fidelity | None = None
    speeds: Mapping[str, float] | None = None

    @property
    def about(self) -> str:
        """Return the line that is kept with a run."""
        return f"working copy in {self.format}: {self.fidelity}" if self.fidelity else self.format


def converted_weights(
    shipped: Path, weights: Weights, threads: int | None = None
) -> ConvertedWeights:
    """Return the file to load for the option `weights`, made now if it is not there yet.

    Raises ModelError for a copy that cannot be made or does not fit memory or disk; `auto` leaves
    such formats out.
    """
    if weights == "shipped":
        return ConvertedWeights(shipped, "shipped")
    threads = threads or system.physical_cores()
    files = ConvertedFiles(shipped, threads)
    with models.exclusive("a working copy", files.folder / "lock", ", or weights: shipped"):
        return files.fastest() if weights == "auto" else files.get(weights)


class ConvertedFiles:
    """The working copies of one shipped file."""

    def __init__(self, shipped: Path, threads: int) -> None:
        self.shipped, self.threads = shipped, threads
        # another version of llama.cpp may write other bytes, and compute at another speed
        name = f"{models.sha256(shipped)[:16]}-{lib.__version__}"
        self.folder = models.cache_folder() / "working" / name
        model = Model(shipped)
        self._parameters = model.parameters
        self._ftype = model.meta("general.file_type")
        model.close()

    def get(self, name: str) -> ConvertedWeights:
        """Return a copy, made and measured if it is not there."""
        if str(FORMATS[name].ftype) == self._ftype:
            return ConvertedWeights(self.shipped, "shipped")
        path, record = self._paths(name)
        fidelity = self._stored_fidelity(name)
        if fidelity:
            return ConvertedWeights(path, name, fidelity)
        # A copy without a record was made by `_candidates`, and is whole: only its fidelity is not
        # known. With a record that does not fit, it is damaged.
        if record.exists() or not path.exists():
            self._refuse_without_room(name)
            self._make(name)
        with progress.task(f"comparing the working copy in {name}"):
            fidelity = measure_fidelity(self.shipped, path, self.threads)
        content = {"sha256": models.sha256(path), "fidelity": asdict(fidelity)}
        atomic.write_text(record, json.dumps(content))
        _log.info("working copy %s: %s", path, fidelity)
        return ConvertedWeights(path, name, fidelity)

    def _stored_fidelity(self, name: str) -> Fidelity | None:
        """Return the fidelity of a copy, if the copy is there and whole."""
        path, record = self._paths(name)
        with suppress(OSError, ValueError, KeyError, TypeError):
            stored = read_object(record)
            if models.sha256(path) == stored["sha256"]:
                return Fidelity(**stored["fidelity"])
        return None

    def fastest(self) -> ConvertedWeights:
        """Return the file that is the fastest in a batch, as measured once on this machine."""
        choice = self.folder / f"choice-{_machine(self.threads)}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            return self._load_choice(read_object(choice))
        _log.info("measuring once which format is the fastest here for %s", self.shipped.name)
        there_before = {name for name in FORMATS if self._paths(name)[0].exists()}
        files = {"shipped": self.shipped} | self._candidates()
        speeds = self._measure(files)
        best = fastest_format(speeds)
        # copies that were made for the measurement alone take much of the disk
        for name in set(files) - there_before - {"shipped", best}:
            self._paths(name)[0].unlink()
        listed = ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items())
        _log.info("tokens/s: %s; taking %s", listed, best)
        result: dict[str, object] = {"format": best, "speeds": speeds}
        chosen = self._load_choice(result)
        atomic.write_text(choice, json.dumps(result))
        return chosen

    def _measure(self, files: Mapping[str, Path]) -> dict[str, float]:
        """Return each file's tokens/s, the best of some rounds.

        The rounds go round the files, so that a disturbance meets all of them alike.
        """
        speeds = dict.fromkeys(files, 0.0)
        total = MEASURE_ROUNDS * len(files)
        with progress.task("measuring formats", total, "measurements") as task:
            for _ in range(MEASURE_ROUNDS):
                for name, path in files.items():
                    speeds[name] = max(speeds[name], measure_speed(path, self.threads))
                    task.advance()
        return speeds

    def _load_choice(self, choice: dict[str, object]) -> ConvertedWeights:
        """Return the file of a stored choice."""
        name, speeds = str(choice["format"]), choice["speeds"]
        assert isinstance(speeds, dict)
        if name == "shipped":
            return ConvertedWeights(self.shipped, name, speeds=speeds)
        copy = self.get(name)
        return ConvertedWeights(copy.path, copy.format, copy.fidelity, speeds)

    def _candidates(self) -> dict[str, Path]:
        """Return copies in all formats worth a measurement, made if they are not there.

        The file's own format is not one, nor one of fewer bits, nor one that does not fit.
        """
        candidates: dict[str, Path] = {}
        min_size = MIN_SIZE_SHARE * self.shipped.stat().st_size
        for name, format in FORMATS.items():
            if str(format.ftype) == self._ftype or self._size(name) < min_size:
                continue
            path, _ = self._paths(name)
            try:
                self._refuse_without_room(name)
                if not path.exists():
                    self._make(name)
            except ModelError as error:
                _log.info("left out %s: %s", name, error)
            else:
                candidates[name] = path
        return candidates

    def _paths(self, name: str) -> tuple[Path, Path]:
        """Return where a copy and its record lie."""
        return self.folder / f"{name}.gguf", self.folder / f"{name}.json"

    def _size(self, name: str) -> int:
        """Return about how many bytes a copy takes."""
        return int(self._parameters * FORMATS[name].bytes)

    def _refuse_without_room(self, name: str) -> None:
        byte_count, free = self._size(name), system.free_memory()
        advice = "Set weights: shipped"
        need = f"a working copy in {name} takes about {size(byte_count)}"
        if byte_count > MAX_MEMORY_SHARE * free:
            raise ModelError(
                f"{need}, and {size(free)} of memory are free. {advice}, or close other programs"
            )
        disk = shutil.disk_usage(self.folder).free
        if DISK_MARGIN * byte_count > disk:
            raise ModelError(
                f"{need}, and {size(disk)} are free in {self.folder}. {advice}, or set "
                f"{models.CACHE_VARIABLE} to a folder on a larger disk"
            )

    def _make(self, name: str) -> None:
        """Put the copy at its place, whole."""
        path, record = self._paths(name)
        record.unlink(missing_ok=True)
        _log.info("writing a working copy of %s in %s", self.shipped.name, name)
        ftype, size = FORMATS[name].ftype, self._size(name)
        with atomic.replacing(path) as part:
            with progress.task(f"a working copy in {name}"):
                wrong = requantise_file(self.shipped, part, ftype, self.threads, size)
            if wrong:
                raise ModelError(
                    f"llama.cpp cannot write {self.shipped} in {name}: {wrong}. Set weights: "
                    "shipped"
                )


def fastest_format(speeds: Mapping[str, float]) -> str:
    """Return the format to take, by tokens/s.

    The shipped file and more faithful formats come before others that are about as fast.
    """
    best = max(speeds.values())
    candidates = (name for name in ("shipped", *FORMATS) if name in speeds)
    return next(name for name in candidates if speeds[name] * MIN_SPEEDUP >= best)


def measure_speed(path: Path, threads: int) -> float:
    """Return tokens/s of a batch that is full, once it runs."""
    model = Model(path)
    cache = context.open_cache(model, context.Size(MEASURE_CELLS, MAX_LOGIT_ROWS, 0), threads)
    sequences = [cache.reserve() for _ in range(MAX_LOGIT_ROWS)]
    max_calls = MEASURE_CELLS // MAX_LOGIT_ROWS
    times: list[float] = []  # seconds of each call
    try:
        # the first call is a warm-up, and does not count
        while len(times) < MIN_CALLS + 1 or (sum(times) < MIN_SECONDS and len(times) < max_calls):
            start = time.perf_counter()
            # any tokens do: the speed does not depend on them
            cache.decode([Token(100 + s, len(times), s, True) for s in sequences])
            times.append(time.perf_counter() - start)
    finally:
        cache.close()
        model.close()
    return MAX_LOGIT_ROWS / statistics.median(times[1:])


def measure_fidelity(shipped: Path, copy: Path, threads: int) -> Fidelity:
    """Return how far a copy is from the shipped file, on a fixed text and questions."""
    logprobs, answers = _reference_outputs(shipped, threads)
    copy_logprobs, copy_answers = _reference_outputs(copy, threads)
    shift = statistics.fmean(abs(a - b) for a, b in zip(logprobs, copy_logprobs, strict=True))
    changed = sum(a != b for a, b in zip(answers, copy_answers, strict=True))
    return Fidelity(shift, changed, len(answers))


def _reference_outputs(path: Path, threads: int) -> tuple[tuple[float, ...], list[str]]:
    """Return the log-probabilities of the text's tokens, and greedy answers to the questions."""
    backend = LlamaCpp(path, threads=threads)
    try:
        (logprobs,) = backend.loglikelihood([Continuation("", REFERENCE_TEXT)])
        if not isinstance(logprobs, tuple):
            raise logprobs
        sampling = Sampling(max_tokens=MAX_ANSWER_TOKENS, stop=("\n",))
        prompts = [f"Question: {question}\nAnswer:" for question in REFERENCE_QUESTIONS]
        requests = [Request(prompt, sampling) for prompt in prompts]
        completions = progress.counted(
            f"answers of {path.name}", backend.generate(requests), "answers", len(requests)
        )
        answers = {i: c.text.strip() for i, c in completions if isinstance(c, Completion)}
    finally:
        backend.close()
    return logprobs, [answers.get(i, "") for i in range(len(requests))]


def _machine(threads: int) -> str:
    """Return a short name for this processor and number of threads."""
    about: list[str] = []
    with suppress(OSError):  # only Linux has it
        about = sorted(set(system.cpu_info("model name", "flags", "Features")))
    text = "\n".join([platform.machine(), platform.processor(), str(threads), *about])
    return blake2b(text.encode(), digest_size=6).hexdigest()
