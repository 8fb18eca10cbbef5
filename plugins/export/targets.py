"""The exports of `selfloop export`, whole or not at all, and the note of `selfloop rollback`."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from selfloop_plugins import models
from selfloop_plugins._shared import cards
from selfloop_plugins._shared.gate_report import read_gate
from selfloop_plugins._shared.output import (
    has_card,
    is_noted,
    note_written,
    refuse_taken,
    refuse_taken_folder,
    writing,
)
from selfloop_plugins._torch.adapter import CONFIG, GGUF, WEIGHTS

from selfloop import History, progress
from selfloop.errors import MissingExtraError, ModelError
from selfloop.records import Adapter, Round
from selfloop.storage import atomic
from selfloop.storage.pinned import verify_model
from selfloop.storage.run_folder import GATE, RunFolder
from selfloop.storage.store import declining_as_in, open_store
from selfloop.text.answers import UNKNOWN

from .card import ADAPTER_LIMITS, LLAMA_SERVER, card
from .check import Check, HeldOut, ModelFiles, NotMeasured, check, held_out_questions
from .merge import adapted_types, is_coarse, merge_gguf, merge_hf

MODELFILE = "Modelfile"
STOP = 'PARAMETER stop "\n"\n'  # a line's end itself: ollama reads no escapes
# a base model has no chat template: this is the prompt in which it was taught
BASE_TEMPLATE = f'TEMPLATE """Question: {{{{ .Prompt }}}}\nAnswer:"""\n{STOP}'
MERGED, BASE = "model.gguf", "base.gguf"  # in a folder for Ollama
# the file by which the folder of an earlier export is recognised
FOLDER_MARKS = {"adapter": CONFIG, "hf": "config.json", "ollama": MODELFILE}
FIGURES = ".check.json"  # is added to the name of a single file, which has no card

_log = logging.getLogger("selfloop.export")


@dataclass(frozen=True, slots=True)
class Source:
    """The run whose tuned model is written: its name, its pinned model, and one of its adapters."""

    name: str
    model: Mapping[str, Any]
    adapter: Adapter


@dataclass(frozen=True, slots=True)
class Written:
    """An export that was written, how it was measured, and what to know before it is loaded."""

    path: Path
    adapter: Adapter
    check: Check | NotMeasured
    notes: tuple[str, ...] = ()


class Measurable(NamedTuple):
    """Files that llama.cpp runs, and the formats in which the adapted weights are.

    `is_merged` tells them from base and adapter themselves, which need no reference.
    """

    files: ModelFiles
    types: frozenset[str] = frozenset()
    is_merged: bool = False


def write_export(
    folder: Path,
    to: str,
    out: Path | None,
    *,
    kind: str | None,
    number: int | None,
    force: bool,
    questions: int,
) -> Written:
    """Write the export that `to` names of the run in `folder`, and measure it.

    At most so many held-out `questions` are asked; 0 writes it unmeasured. Raises SelfloopError;
    ModelError, too, where the written file answers otherwise than the run's model, unless `force`.
    """
    with closing(open_store(folder, write=False)) as store:
        model, rounds = store.meta().get("model", {}), list(store.rounds())
        active = store.history().adapter
    adapter = _located(folder, active if number is None else _adapter_of(folder, rounds, number))
    source = Source(folder.resolve().name, model, adapter)
    apart = to == "ollama" and kind is None and _is_kept_apart(source)
    # each writes into a temporary file or folder, which then takes its place
    writers: dict[str, Callable[[Path], Measurable | NotMeasured]] = {
        "adapter": lambda part: _write_adapter(source, part),
        "gguf": lambda part: _write_merged(source, part, kind),
        "hf": lambda part: _write_hf(source, part),
        "ollama": lambda part: _write_ollama(source, part, kind, apart=apart),
    }
    write = writers[to]
    held_out = held_out_questions(_history_before(adapter, rounds), questions)

    def write_and_check(part: Path) -> Check | NotMeasured:
        measurable = write(part)
        if isinstance(measurable, NotMeasured):
            return measurable
        if not held_out:
            why = (
                "no question was to be asked" if questions == 0 else "the run held out no question"
            )
            return NotMeasured(why)
        with declining_as_in(folder):
            return _checked(source, measurable, held_out, force=force)

    if to in FOLDER_MARKS:
        out = out or Path(f"{source.name}-{to}")
        recipe = RunFolder(folder).recipe.read_text(encoding="utf-8")
        is_ours = partial(_is_earlier_export, mark=FOLDER_MARKS[to])
        # before the merge, which may take minutes
        report = read_gate(Path(adapter.path).parent)
        refuse_taken_folder(out, f"export --to {to}", force=force, ours=is_ours)
        with writing(out), atomic.replacing_folder(out) as part:
            measured = write_and_check(part)
            about = card(source.name, to, model, adapter, recipe, report, measured, apart=apart)
            (part / cards.NAME).write_text(about, encoding="utf-8", newline="\n")
    else:
        out = out or Path(f"{source.name}-{to}.gguf")
        is_ours = partial(is_noted, command="export")
        refuse_taken(out, f"export --to {to}", force=force, ours=is_ours)
        figures = out.with_name(out.name + FIGURES)
        refuse_taken(figures, f"export --to {to}", force=force, ours=is_ours)
        with writing(out), atomic.replacing(out, parents=True) as part:
            measured = write_and_check(part)
        note_written(out, "export")  # by which a later --force knows the file as ours
        with writing(figures):
            _write_figures(figures, out, measured)
    return Written(out, adapter, measured, _notes(to, source, apart=apart))


def _history_before(adapter: Adapter, rounds: Sequence[Round]) -> History:
    """Return the history that the adapter's tuner saw; the whole one where its round is unknown."""
    seen = [ended for ended in rounds if not adapter.round or ended.number <= adapter.round]
    return History.from_rounds(seen)


def _is_kept_apart(source: Source) -> bool:
    """Return whether the adapter is not merged by default: packing would round part of it away.

    Ollama's ADAPTER adds it once, so another scale has to be merged.
    """
    types = adapted_types(_base_file(source), source.adapter)
    return source.adapter.scale == 1.0 and any(map(is_coarse, types))


def _checked(
    source: Source, measurable: Measurable, held_out: Sequence[HeldOut], *, force: bool
) -> Check | NotMeasured:
    """Return the rates of the files, beside those of base and adapter where they are merged.

    Raises ModelError where the files answer otherwise, unless `force`.
    """
    adapter = source.adapter
    reference = None
    if measurable.is_merged:
        reference = ModelFiles(_base_file(source), Path(adapter.path), adapter.scale)
    chat = bool(source.model.get("chat"))
    try:
        measured = check(measurable.files, reference, held_out, chat=chat, types=measurable.types)
    except MissingExtraError as error:  # an adapter can be written without llama.cpp
        return NotMeasured(str(error))
    if measured.refusal:
        if not force:
            raise ModelError(measured.refusal)
        _log.warning("%s", measured.refusal)
    return measured


def _write_figures(path: Path, export: Path, measured: Check | NotMeasured) -> None:
    """Write the figures beside a single file; without any, remove those of an earlier one."""
    if isinstance(measured, Check):
        content = {"file": export.name, "sha256": models.sha256(export)} | measured.plain()
        atomic.write_text(path, json.dumps(content, indent=1) + "\n")
        note_written(path, "export")
    elif is_noted(path, "export"):
        path.unlink()


def _notes(to: str, source: Source, *, apart: bool) -> tuple[str, ...]:
    """Return what to know before an export is loaded."""
    if apart:
        return (
            "The base is packed, and merging would round part of the tuning away: the adapter "
            f"is kept apart. llama-server takes it: {LLAMA_SERVER}",
            f"{ADAPTER_LIMITS} Elsewhere merge it: --to ollama --type q8_0",
        )
    path = Path(source.adapter.path)
    if to == "adapter" and (path.parent / GGUF).is_file():
        return (f"llama-server takes it beside its base: llama-server -m BASE.gguf --lora {GGUF}",)
    return ()


def _is_earlier_export(path: Path, mark: str) -> bool:
    """Return whether a folder is an earlier export: it has the file `mark` and our card."""
    return (path / mark).is_file() and has_card(path)


def roll_back(folder: Path, number: int) -> Adapter | None:
    """Note that the adapter of round `number` is in effect from now on; return it.

    Raises SelfloopError.
    """
    with closing(open_store(folder, write=True)) as store:
        rounds = list(store.rounds())
        adapter = _adapter_of(folder, rounds, number) if number else None
        if adapter:
            _located(folder, adapter)  # raises where its file is gone
        # each rollback is kept, with the round before which it was made: a rescored round must know
        # the adapter that it had
        store.set_meta(rollbacks=[*store.meta().get("rollbacks", ()), (len(rounds), number)])
    return adapter


def _adapter_of(folder: Path, rounds: Sequence[Round], number: int) -> Adapter:
    """Return the adapter of a round. Raises ModelError, with the rounds that have one, without."""
    adapters = {ended.number: ended.adapter for ended in rounds if ended.adapter}
    if number not in adapters:
        fault = "made no adapter"
        if not 0 < number <= len(rounds):
            fault = f"is none of the {len(rounds)} that {folder} has"
        numbers = ", ".join(map(str, adapters)) or "none"
        raise ModelError(f"round {number} {fault}; rounds that made an adapter: {numbers}")
    return adapters[number]


def _located(folder: Path, adapter: Adapter | None) -> Adapter:
    """Return the adapter with its path as it is now, for runs get moved.

    Raises ModelError if it is gone or another.
    """
    if adapter is None:
        raise ModelError(
            f"{folder} has no adapter in effect: no tuner of its recipe made one that was taken "
            f"(selfloop show {folder} --failures), or it was rolled back to the base"
        )
    path = folder / adapter.path
    if not path.is_file() or models.sha256(path) != adapter.sha256:
        raise ModelError(
            f"the adapter {path} is gone, or another than the run made; play the run again"
        )
    return replace(adapter, path=str(path))


def _write_adapter(source: Source, part: Path) -> Measurable | NotMeasured:
    """Copy the files that peft and llama.cpp read, and the gate's report."""
    path = Path(source.adapter.path)
    names = (path.name, CONFIG, WEIGHTS, GGUF, GATE)
    for name in dict.fromkeys(names):  # the first is one of the next two: once is enough
        if (path.parent / name).is_file():
            shutil.copyfile(path.parent / name, part / name)
    if path.suffix != ".gguf":
        return NotMeasured("the base is no GGUF file, which llama.cpp needs")
    try:
        base = _base_file(source)
    except ModelError as error:  # it is needed for measuring alone
        return NotMeasured(str(error))
    return Measurable(ModelFiles(base, part / path.name, source.adapter.scale))


def _write_merged(source: Source, part: Path, kind: str | None) -> Measurable:
    types = merge_gguf(_base_file(source), source.adapter, part, kind)
    return Measurable(ModelFiles(part), types, is_merged=True)


def _write_hf(source: Source, part: Path) -> NotMeasured:
    merge_hf(_refuse_changed(source.model), source.adapter, part)
    return NotMeasured("a folder of transformers cannot be asked in llama.cpp")


def _base_file(source: Source) -> Path:
    """Return the GGUF file that the run ran on.

    Raises ModelError if there is none, or another by now.
    """
    path = Path(source.model.get("file", ""))
    if not source.adapter.path.endswith(".gguf"):
        raise ModelError(
            f"the model of this run, {path}, did not come as GGUF, so none can be merged; take "
            "--to hf"
        )
    if not path.is_file():
        raise ModelError(f"the model of this run, {path}, is gone; put it back")
    return Path(_refuse_changed(source.model)["file"])


def _refuse_changed(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the model as the run pinned it.

    Raises ModelError where its file has changed since.
    """
    path = Path(model.get("file", ""))
    if path.is_file():
        verify_model(model, models.sha256(path))
    return model


def _write_ollama(source: Source, part: Path, kind: str | None, *, apart: bool) -> Measurable:
    """Write the merged file, or base and adapter, and the Modelfile of ollama.

    A chat template stands in the GGUF file, that of a base model here. How ollama reads it:
    github.com/ollama/ollama, parser/parser.go.
    """
    base, adapter = _base_file(source), source.adapter
    if apart:
        size = base.stat().st_size
        copied = part / BASE
        with progress.task(f"copying {base.name}", size, progress.BYTES, progress.size_of(copied)):
            shutil.copyfile(base, copied)
        shutil.copyfile(adapter.path, part / GGUF)
        weights = f"FROM ./{BASE}\nADAPTER ./{GGUF}\n"
        written = Measurable(ModelFiles(copied, part / GGUF))
    else:
        types = merge_gguf(base, adapter, part / MERGED, kind)
        weights = f"FROM ./{MERGED}\n"
        written = Measurable(ModelFiles(part / MERGED), types, is_merged=True)
    text = (
        f'# Tuned by selfloop to say "{UNKNOWN}" where it does not know: '
        f"ollama create NAME -f {MODELFILE}\n"
        f"{weights}PARAMETER temperature 0\n"
    )
    if not source.model.get("chat"):
        text += BASE_TEMPLATE
    (part / MODELFILE).write_text(text, encoding="utf-8", newline="\n")
    return written
