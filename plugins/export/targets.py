"""What `selfloop export` writes, whole or not at all, and what `selfloop rollback` notes."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from selfloop.answers import UNKNOWN
from selfloop.errors import ModelError, StoreError
from selfloop.records import Adapter, Round
from selfloop.store import opened

from .. import models
from ..hf.adapter import CONFIG, GGUF, WEIGHTS
from .merge import merge_gguf, merge_hf

MODELFILE = "Modelfile"
STOP = 'PARAMETER stop "\n"\n'  # a line's end itself: ollama reads no escapes
BASE = f'TEMPLATE """Question: {{{{ .Prompt }}}}\nAnswer:"""\n{STOP}'
MARKS = {"adapter": CONFIG, "hf": "config.json", "ollama": MODELFILE}  # by which an earlier export is known


def written(
    folder: Path, to: str, out: Path | None, *, kind: str | None, number: int | None, force: bool
) -> tuple[Path, Adapter]:
    """Write what `to` names of the run in `folder`; return where, and what is in it. Raises SelfloopError."""
    with closing(opened(folder, write=False)) as store:
        model, rounds, held = store.meta().get("model", {}), list(store.rounds()), store.past().adapter
    adapter = _found(folder, held if number is None else _of(folder, rounds, number))
    out = out or Path(f"{folder.resolve().name}-{to}{'.gguf' if to == 'gguf' else ''}")
    making: dict[str, Callable[[Path], None]] = {
        "adapter": lambda part: _copy(adapter, part),
        "gguf": lambda part: merge_gguf(_base(model, adapter), adapter, part, kind),
        "hf": lambda part: merge_hf(_same(model), adapter, part),
        "ollama": lambda part: _ollama(model, adapter, part, kind),
    }
    _refuse_taken(out, to, force)
    whole(out, making[to])
    return out, adapter


def rolled_back(folder: Path, number: int) -> Adapter | None:
    """Note that the adapter of round `number` is in effect from now on; return it. Raises SelfloopError."""
    with closing(opened(folder, write=True)) as store:
        rounds = list(store.rounds())
        adapter = _of(folder, rounds, number) if number else None
        if adapter:
            _found(folder, adapter)
        store.pin(rollbacks=[*store.meta().get("rollbacks", ()), (len(rounds), number)])
    return adapter


def _refuse_taken(out: Path, to: str, force: bool) -> None:
    """Raise where something is in the way. `--force` replaces an earlier export, not any folder that was named."""
    if not out.exists():
        return
    if not force:
        raise click.UsageError(f"{out} is there already; name another with --out, or replace it with --force")
    if not ((out / MARKS[to]).is_file() if to in MARKS else out.is_file()):
        raise click.UsageError(f"{out} is no earlier export --to {to}, which --force replaces; name another with --out")


def whole(out: Path, make: Callable[[Path], Any]) -> None:
    """Let `make` write a file or folder beside `out`, and put it there once it is done, in place of what was there."""
    place = out.resolve()
    part, old = (place.with_name(f"{place.name}.{os.getpid()}.{what}") for what in ("part", "old"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        make(part)
        for path in filter(Path.is_file, (part, *part.rglob("*"))):
            models.settle(path)
        if place.is_dir():
            place.replace(old)
        part.replace(place)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}. Choose another place with --out") from error
    finally:
        shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def _of(folder: Path, rounds: Sequence[Round], number: int) -> Adapter:
    made = {one.number: one.adapter for one in rounds if one.adapter}
    if number not in made:
        there = ", ".join(map(str, made)) or "none"
        what = "made no adapter" if 0 < number <= len(rounds) else f"is none of the {len(rounds)} that {folder} has"
        raise ModelError(f"round {number} {what}; rounds that made an adapter: {there}")
    return made[number]


def _found(folder: Path, adapter: Adapter | None) -> Adapter:
    """Return the adapter with its path as it is now, for runs get moved. Raises ModelError if it is gone or another."""
    if adapter is None:
        raise ModelError(
            f"{folder} has no adapter in effect: no tuner of its recipe made one that was taken "
            f"(selfloop show {folder} --failures), or it was rolled back to the base"
        )
    path = folder / adapter.path
    if not path.is_file() or models.sha256(path) != adapter.sha256:
        raise ModelError(f"the adapter {path} is gone, or another than the run made; play the run again")
    return replace(adapter, path=str(path))


def _copy(adapter: Adapter, part: Path) -> None:
    """Copy what peft and llama.cpp read, and what the gate said of it."""
    path = Path(adapter.path)
    part.mkdir()
    for name in dict.fromkeys((path.name, CONFIG, WEIGHTS, GGUF, "gate.json")):
        if (path.parent / name).is_file():
            shutil.copyfile(path.parent / name, part / name)


def _base(model: dict[str, Any], adapter: Adapter) -> Path:
    """Return the GGUF file that the run ran on. Raises ModelError if there is none, or another by now."""
    path = Path(model.get("file", ""))
    if not adapter.path.endswith(".gguf"):
        raise ModelError(f"the model of this run, {path}, did not come as GGUF, so none can be merged; take --to hf")
    if not path.is_file():
        raise ModelError(f"the model of this run, {path}, is gone; put it back")
    return Path(_same(model)["file"])


def _same(model: dict[str, Any]) -> dict[str, Any]:
    """Return what the run pinned of its model. Raises ModelError where its file is another by now."""
    path = Path(model.get("file", ""))
    if path.is_file() and models.sha256(path) != model["sha256"]:
        raise ModelError(f"{path} is another file than this run was made with; put the old one back")
    return model


def _ollama(model: dict[str, Any], adapter: Adapter, part: Path, kind: str | None) -> None:
    """Write the merged file and what ollama makes a model of. A chat template stands in the file, for a base one here.

    How ollama reads it: github.com/ollama/ollama, parser/parser.go.
    """
    part.mkdir()
    merge_gguf(_base(model, adapter), adapter, part / "model.gguf", kind)
    about = f'# Tuned by selfloop to say "{UNKNOWN}" where it does not know: ollama create NAME -f {MODELFILE}\n'
    lines = f"FROM ./model.gguf\nPARAMETER temperature 0\n{'' if model.get('chat') else BASE}"
    (part / MODELFILE).write_text(about + lines, encoding="utf-8", newline="\n")
