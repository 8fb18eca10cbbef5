"""What `selfloop export` writes, whole or not at all, and what `selfloop rollback` notes."""

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
BASE = f'TEMPLATE """Question: {{{{ .Prompt }}}}\nAnswer:"""\n{STOP}'
# by which an earlier export is known
MARKS = {"adapter": CONFIG, "hf": "config.json", "ollama": MODELFILE}


def written(
    folder: Path, to: str, out: Path | None, *, kind: str | None, number: int | None, force: bool
) -> tuple[Path, Adapter]:
    """Write what `to` names of the run in `folder`; return where, and what is in it.

    Raises SelfloopError.
    """
    with closing(open_store(folder, write=False)) as store:
        model, rounds, held = (
            store.meta().get("model", {}),
            list(store.rounds()),
            store.past().adapter,
        )
    adapter = _found(folder, held if number is None else _of(folder, rounds, number))
    out = out or Path(f"{folder.resolve().name}-{to}{'.gguf' if to == 'gguf' else ''}")
    recipe = RunFolder(folder).recipe.read_text(encoding="utf-8")
    # a single file has no card
    about = card(folder.resolve().name, to, model, adapter, recipe) if to in MARKS else ""
    making: dict[str, Callable[[Path], None]] = {
        "adapter": lambda part: _copy(adapter, part),
        "gguf": lambda part: merge_gguf(_base(model, adapter), adapter, part, kind),
        "hf": lambda part: merge_hf(_same(model), adapter, part),
        "ollama": lambda part: _ollama(model, adapter, part, kind),
    }

    if to in MARKS:
        ours = partial(_is_earlier, mark=MARKS[to])
        refuse_taken_folder(out, f"export --to {to}", force=force, ours=ours)
        with writing(out), atomic.replacing_folder(out) as part:
            making[to](part)
            (part / cards.NAME).write_text(about, encoding="utf-8", newline="\n")
        return out, adapter
    refuse_taken(out, f"export --to {to}", force=force, ours=lambda path: is_noted(path, "export"))
    with writing(out), atomic.replacing(out, parents=True) as part:
        making[to](part)
    note_written(out, "export")
    return out, adapter


def _is_earlier(path: Path, mark: str) -> bool:
    """Return whether a folder is an export that was written before."""
    return (path / mark).is_file() and has_card(path)


def rolled_back(folder: Path, number: int) -> Adapter | None:
    """Note that the adapter of round `number` is in effect from now on; return it.

    Raises SelfloopError.
    """
    with closing(open_store(folder, write=True)) as store:
        rounds = list(store.rounds())
        adapter = _of(folder, rounds, number) if number else None
        if adapter:
            _found(folder, adapter)
        store.set_meta(rollbacks=[*store.meta().get("rollbacks", ()), (len(rounds), number)])
    return adapter


def _of(folder: Path, rounds: Sequence[Round], number: int) -> Adapter:
    made = {one.number: one.adapter for one in rounds if one.adapter}
    if number not in made:
        there = ", ".join(map(str, made)) or "none"
        what = (
            "made no adapter"
            if 0 < number <= len(rounds)
            else f"is none of the {len(rounds)} that {folder} has"
        )
        raise ModelError(f"round {number} {what}; rounds that made an adapter: {there}")
    return made[number]


def _found(folder: Path, adapter: Adapter | None) -> Adapter:
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
    """Copy what peft and llama.cpp read, and what the gate said of it."""
    path = Path(adapter.path)
    for name in dict.fromkeys((path.name, CONFIG, WEIGHTS, GGUF, GATE)):
        if (path.parent / name).is_file():
            shutil.copyfile(path.parent / name, part / name)


def _base(model: dict[str, Any], adapter: Adapter) -> Path:
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
    return Path(_same(model)["file"])


def _same(model: dict[str, Any]) -> dict[str, Any]:
    """Return what the run pinned of its model.

    Raises ModelError where its file is another by now.
    """
    path = Path(model.get("file", ""))
    if path.is_file():
        verify_model(model, models.sha256(path))
    return model


def _ollama(model: dict[str, Any], adapter: Adapter, part: Path, kind: str | None) -> None:
    """Write the merged file and what ollama makes a model of. A chat template stands in the file,
    for a base one here.

    How ollama reads it: github.com/ollama/ollama, parser/parser.go.
    """
    merge_gguf(_base(model, adapter), adapter, part / "model.gguf", kind)
    about = f'# Tuned by selfloop to say "{UNKNOWN}" where it does not know: ollama create NAME -f {MODELFILE}\n'
    lines = f"FROM ./model.gguf\nPARAMETER temperature 0\n{'' if model.get('chat') else BASE}"
    (part / MODELFILE).write_text(about + lines, encoding="utf-8", newline="\n")
