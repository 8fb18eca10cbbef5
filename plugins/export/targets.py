"""The exports of `selfloop export`, whole or not at all, and the note of `selfloop rollback`."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from selfloop_plugins import models
from selfloop_plugins._shared import cards
from selfloop_plugins._shared.output import (
    has_card,
    is_noted,
    note_written,
    refuse_taken,
    refuse_taken_folder,
    writing,
)
from selfloop_plugins._torch.adapter import CONFIG, GGUF, WEIGHTS

from selfloop.errors import ModelError
from selfloop.records import Adapter, Round
from selfloop.storage import atomic
from selfloop.storage.pinned import verify_model
from selfloop.storage.run_folder import GATE, RunFolder
from selfloop.storage.store import open_store
from selfloop.text.answers import UNKNOWN

from .card import card
from .merge import merge_gguf, merge_hf

MODELFILE = "Modelfile"
STOP = 'PARAMETER stop "\n"\n'  # a line's end itself: ollama reads no escapes
# a base model has no chat template: this is the prompt in which it was taught
BASE_TEMPLATE = f'TEMPLATE """Question: {{{{ .Prompt }}}}\nAnswer:"""\n{STOP}'
# the file by which the folder of an earlier export is recognised
FOLDER_MARKS = {"adapter": CONFIG, "hf": "config.json", "ollama": MODELFILE}


def write_export(
    folder: Path, to: str, out: Path | None, *, kind: str | None, number: int | None, force: bool
) -> tuple[Path, Adapter]:
    """Write the export that `to` names of the run in `folder`; return its path and its adapter.

    Raises SelfloopError.
    """
    with closing(open_store(folder, write=False)) as store:
        model, rounds = store.meta().get("model", {}), list(store.rounds())
        active = store.history().adapter
    adapter = _located(folder, active if number is None else _adapter_of(folder, rounds, number))
    name = folder.resolve().name
    # each writes into a temporary file or folder, which then takes its place
    writers: dict[str, Callable[[Path], None]] = {
        "adapter": lambda part: _copy(adapter, part),
        "gguf": lambda part: merge_gguf(_base_file(model, adapter), adapter, part, kind),
        "hf": lambda part: merge_hf(_refuse_changed(model), adapter, part),
        "ollama": lambda part: _write_ollama(model, adapter, part, kind),
    }
    write = writers[to]
    if to in FOLDER_MARKS:
        out = out or Path(f"{name}-{to}")
        recipe = RunFolder(folder).recipe.read_text(encoding="utf-8")
        about = card(name, to, model, adapter, recipe)
        is_ours = partial(_is_earlier_export, mark=FOLDER_MARKS[to])
        # before the merge, which may take minutes
        refuse_taken_folder(out, f"export --to {to}", force=force, ours=is_ours)
        with writing(out), atomic.replacing_folder(out) as part:
            write(part)
            (part / cards.NAME).write_text(about, encoding="utf-8", newline="\n")
    else:  # a single file, which has no card
        out = out or Path(f"{name}-{to}.gguf")
        refuse_taken(
            out, f"export --to {to}", force=force, ours=partial(is_noted, command="export")
        )
        with writing(out), atomic.replacing(out, parents=True) as part:
            write(part)
        note_written(out, "export")  # by which a later --force knows the file as ours
    return out, adapter


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


def _copy(adapter: Adapter, part: Path) -> None:
    """Copy the files that peft and llama.cpp read, and the gate's report."""
    path = Path(adapter.path)
    names = (path.name, CONFIG, WEIGHTS, GGUF, GATE)
    for name in dict.fromkeys(names):  # the first is one of the next two: once is enough
        if (path.parent / name).is_file():
            shutil.copyfile(path.parent / name, part / name)


def _base_file(model: dict[str, Any], adapter: Adapter) -> Path:
    """Return the GGUF file that the run ran on.

    Raises ModelError if there is none, or another by now.
    """
    path = Path(model.get("file", ""))
    if not adapter.path.endswith(".gguf"):
        raise ModelError(
            f"the model of this run, {path}, did not come as GGUF, so none can be merged; take "
            "--to hf"
        )
    if not path.is_file():
        raise ModelError(f"the model of this run, {path}, is gone; put it back")
    return Path(_refuse_changed(model)["file"])


def _refuse_changed(model: dict[str, Any]) -> dict[str, Any]:
    """Return the model as the run pinned it.

    Raises ModelError where its file has changed since.
    """
    path = Path(model.get("file", ""))
    if path.is_file():
        verify_model(model, models.sha256(path))
    return model


def _write_ollama(model: dict[str, Any], adapter: Adapter, part: Path, kind: str | None) -> None:
    """Write the merged file and the Modelfile of ollama. A chat template stands in the merged file,
    that of a base model here.

    How ollama reads it: github.com/ollama/ollama, parser/parser.go.
    """
    merge_gguf(_base_file(model, adapter), adapter, part / "model.gguf", kind)
    text = (
        f'# Tuned by selfloop to say "{UNKNOWN}" where it does not know: '
        f"ollama create NAME -f {MODELFILE}\n"
        "FROM ./model.gguf\nPARAMETER temperature 0\n"
    )
    if not model.get("chat"):
        text += BASE_TEMPLATE
    (part / MODELFILE).write_text(text, encoding="utf-8", newline="\n")
