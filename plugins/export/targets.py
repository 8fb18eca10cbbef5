"""What `selfloop export` writes, whole or not at all, and what `selfloop rollback` notes."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from selfloop.answers import UNKNOWN
from selfloop.errors import ModelError, StoreError
from selfloop.ledger import Past
from selfloop.records import Adapter, Round
from selfloop.store import RECIPE, Store

from .. import models
from .merge import merge_gguf, merge_hf, requantise

MODELFILE = "Modelfile"
BASE = '''TEMPLATE """Question: {{ .Prompt }}
Answer:"""
PARAMETER stop "\\n"
'''


def written(folder: Path, to: str, out: Path | None, *, kind: str | None, number: int | None, force: bool) -> Path:
    """Write what `to` names of the run in `folder`; return where. Raises SelfloopError."""
    with closing(_store(folder, write=False)) as store:
        model, rounds, held = store.meta().get("model", {}), list(store.rounds()), store.past().adapter
    adapter = _found(folder, held if number is None else _of(rounds, number))
    suffix = ".gguf" if to == "gguf" else ""
    out = out or Path(f"{folder.resolve().name}-{to}{suffix}")
    making: dict[str, Callable[[Path], None]] = {
        "adapter": lambda part: _copy(adapter, part),
        "gguf": lambda part: _gguf(model, adapter, part, kind),
        "hf": lambda part: merge_hf(_place(model), adapter, part),
        "ollama": lambda part: _ollama(model, adapter, part, kind),
    }
    whole(out, making[to], force)
    return out


def rolled_back(folder: Path, number: int) -> Adapter | None:
    """Note that the adapter after round `number` is in effect from now on; return it. Raises SelfloopError."""
    with closing(_store(folder, write=True)) as store:
        rounds = list(store.rounds())
        if number > len(rounds):
            raise StoreError(f"{folder} has {len(rounds)} rounds: there is no round {number} to go back to")
        if adapter := Past.of(rounds[:number]).adapter:
            _found(folder, adapter)
        store.pin(rollback={"after": len(rounds), "to": number})
    return adapter


def whole(out: Path, make: Callable[[Path], Any], force: bool) -> None:
    """Let `make` write a file or folder beside `out`, and put it there once it is done."""
    if out.exists() and not force:
        raise click.UsageError(f"{out} is there already; name another with --out, or replace it with --force")
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        make(part)
        if out.is_dir():
            shutil.rmtree(out)
        part.replace(out)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}. Choose another place with --out") from error
    finally:
        shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def _store(folder: Path, *, write: bool) -> Store:
    if not (folder / RECIPE).is_file():
        raise StoreError(f"no run in {folder}. Give the folder of a run, as `selfloop run` printed it.")
    return Store(folder, write=write)


def _of(rounds: list[Round], number: int) -> Adapter | None:
    made = {one.adapter.round: one.adapter for one in rounds if one.adapter}
    if number not in made:
        there = ", ".join(map(str, made)) or "none"
        raise ModelError(f"round {number} made no adapter; rounds that did: {there}")
    return made[number]


def _found(folder: Path, adapter: Adapter | None) -> Adapter:
    """Return the adapter where it lies now, for runs get moved. Raises ModelError if it is gone or another."""
    if adapter is None:
        raise ModelError(
            f"{folder} has no adapter in effect: no tuner of its recipe made one that was taken "
            f"(selfloop show {folder} --failures), or it was rolled back to the base"
        )
    path = Path(adapter.path)
    here = folder / "adapters" / path.parent.name / path.name
    path = here if here.is_file() else path
    if not path.is_file() or models.sha256(path) != adapter.sha256:
        raise ModelError(f"the adapter {path} is gone, or another than the run made; play the run again")
    return replace(adapter, path=str(path))


def _copy(adapter: Adapter, part: Path) -> None:
    home = Path(adapter.path).parent
    part.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter.gguf", "gate.json"):
        if (home / name).is_file():
            shutil.copyfile(home / name, part / name)


def _base(model: dict[str, Any]) -> Path:
    """Return the file that the run ran on."""
    path = Path(model.get("file", ""))
    if not path.exists():
        raise ModelError(f"the model of this run, {path}, is gone; put it back")
    if path.is_file() and models.sha256(path) != model["sha256"]:
        raise ModelError(f"{path} is another file than this run was made with; put the old one back")
    return path


def _place(model: dict[str, Any]) -> str:
    """Return the folder, or the name on the hub, that transformers loads."""
    from ..hf.checkpoint import locate

    file = str(model.get("file", ""))
    return locate(str(_base(model))).place if Path(file).is_file() else locate(file).place


def _gguf(model: dict[str, Any], adapter: Adapter, part: Path, kind: str | None) -> None:
    base = _base(model)
    if base.is_dir() or not adapter.path.endswith(".gguf"):
        raise ModelError(f"{base} did not come as GGUF, so there is none to merge into; take --to hf")
    if kind is None:
        merge_gguf(base, adapter, part)
        return
    wide, merged = (part.with_name(f"{part.name}.{name}") for name in ("wide", "merged"))
    try:
        requantise(base, wide, "f16")
        merge_gguf(wide, adapter, merged)
        requantise(merged, part, kind)
    finally:
        wide.unlink(missing_ok=True)
        merged.unlink(missing_ok=True)


def _ollama(model: dict[str, Any], adapter: Adapter, part: Path, kind: str | None) -> None:
    part.mkdir()
    _gguf(model, adapter, part / "model.gguf", kind)
    lines = f"FROM ./model.gguf\nPARAMETER temperature 0\n{'' if model.get('chat') else BASE}"
    about = f'# Tuned by selfloop to say "{UNKNOWN}" where it does not know: ollama create NAME -f {MODELFILE}\n'
    models.write(part / MODELFILE, about + lines)
