"""`selfloop models`: every model on this disk, by its name in a recipe, with its properties."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from selfloop import hookimpl
from selfloop.cli.options import FilePath, as_json
from selfloop.cli.tables import print_table, print_wrapped
from selfloop.errors import ModelError
from selfloop.text.display import printable
from selfloop.text.units import parameters, size

from .fetching import path_of
from .gguf_checks import check_parts
from .gguf_header import Header, files_of, read_header
from .hashing import sha256, stored_sha256
from .known import KNOWN_MODELS
from .stores import STORES, ModelFile, ModelStore, file_identity, ggufs, with_absence

OWN_TITLE = "selfloop, which fetches these by itself"
# the hub and Ollama name their files by hash
BLOB = re.compile(r"(?:sha256-)?([0-9a-f]{64})")
COLUMNS = ("", "size", "architecture", "weights", "kind", "license", "")
# cells of an architecture or a licence, which a stranger may have written
MAX_CELLS = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One model of the list.

    `here`: it is on this disk. `wrong`: why it cannot be used. `kind`: chat, base, or neither.
    `unused`: the parts of it that selfloop does not use.
    """

    name: str
    place: str
    path: str
    here: bool = True
    bytes: int = 0
    architecture: str = ""
    parameters: int = 0
    kind: str = ""
    license: str = ""
    sha256: str | None = None
    wrong: str = ""
    unused: str = ""


@click.command("models")
@click.argument(
    "folders",
    nargs=-1,
    metavar="[FOLDER]...",
    type=FilePath(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--sha256", "hashed", is_flag=True, help="Read whole files for hashes that are not known yet."
)
@as_json
def command(folders: tuple[Path, ...], hashed: bool, as_json: bool) -> None:
    """List the models on this disk by the names that a recipe may write.

    Looks into selfloop's own cache, those of the Hugging Face hub, Ollama and LM Studio, this
    folder, and below each FOLDER.

    \b
    Examples:
      selfloop models
      selfloop models . --sha256
    """
    rows = [*_fetchable(hashed), *_in_stores(hashed), *_in_folders(folders, hashed)]
    if as_json:
        looked = {store.prefix: list(map(str, store.folders())) for store in STORES}
        content = {"models": [asdict(row) for row in rows], "looked": looked}
        click.echo(json.dumps(content, indent=2))
        return
    titles = list(dict.fromkeys(row.place for row in rows))
    for title in titles:
        _print_section(title, [row for row in rows if row.place == title])
    for store in STORES:
        if store.title not in titles:
            click.echo(f"nothing in {store.title}: {_searched(store)}\n")
    _print_ending(rows)


def _fetchable(hashed: bool) -> Iterator[Row]:
    """Yield the models that selfloop can fetch itself, fetched or not."""
    for name, model in KNOWN_MODELS.items():
        path = path_of(model)
        if path.is_file():
            yield _model_row(ModelFile(name, path), OWN_TITLE, hashed, model.license)
        else:
            yield Row(
                name,
                OWN_TITLE,
                str(path),
                here=False,
                bytes=model.megabytes * 10**6,
                license=model.license,
                sha256=model.sha256,
            )


def _in_stores(hashed: bool) -> Iterator[Row]:
    """Yield the models that other programs keep."""
    for store in STORES:
        for _, model in sorted(store.models().items()):
            yield _model_row(model, store.title, hashed)


def _in_folders(folders: Sequence[Path], hashed: bool) -> Iterator[Row]:
    """Yield the models in this folder and below those named, each once."""
    files = {"this folder": sorted(Path().glob("*.gguf"))}
    files |= {str(folder): ggufs(folder) for folder in folders}
    listed: set[object] = set()
    for title, paths in files.items():
        for path in paths:
            identity = file_identity(path)
            if identity not in listed:
                listed.add(identity)
                yield _model_row(ModelFile(str(path), path), title, hashed)


def _model_row(model: ModelFile, place: str, hashed: bool, license: str = "") -> Row:
    """Return the facts in a file's header, or why it cannot be used."""
    if model.wrong:
        return Row(model.name, place, str(model.path), wrong=model.wrong)
    try:
        check_parts(model.path)
        files = files_of(model.path)
        headers = [read_header(file) for file in files]
        total_bytes = sum(file.stat().st_size for file in files)
        digest = sha256(model.path) if hashed else _cheap_sha256(model.path)
    except (ModelError, OSError) as error:
        return Row(model.name, place, str(model.path), wrong=str(error))
    first = headers[0]  # of several files the first one describes the model
    return Row(
        model.name,
        place,
        str(model.path),
        bytes=total_bytes,
        architecture=first.architecture,
        parameters=sum(header.parameters for header in headers),
        kind=_kind(first),
        license=license or first.string("general.license"),
        sha256=digest,
        unused=model.unused,
    )


def _cheap_sha256(path: Path) -> str | None:
    """Return a hash for which no file is read: one made before, or the file's own name."""
    stored = stored_sha256(path)
    if stored:
        return stored
    blob = BLOB.fullmatch(path.resolve().name)
    return blob[1] if blob and len(files_of(path)) == 1 else None


def _kind(header: Header) -> str:
    if not header.language_model:
        return f"no model by itself ({header.string('general.type') or 'no architecture'})"
    return "chat" if header.chat else "base"


def _print_section(title: str, rows: Sequence[Row]) -> None:
    """Print the models of one place: a table, notes on it, and the broken ones."""
    click.secho(printable(title), bold=True)
    usable = [row for row in rows if not row.wrong]
    if usable:
        print_table(COLUMNS, [_cells(row) for row in usable], left=len(COLUMNS), header=False)
    for row in usable:
        if row.unused:
            note = f"of {printable(row.name)} not used: {printable(row.unused)}"
            print_wrapped(note, first="  ", more="    ")
    for row in rows:
        if row.wrong:
            click.echo(f"  {printable(row.name)}")
            click.secho(f"    broken: {printable(row.wrong)}", fg="red")
            click.echo()


def _cells(row: Row) -> tuple[str, ...]:
    """Return a row's columns. The name is never cut: it is to be copied."""
    about = (
        row.architecture,
        parameters(row.parameters),
        row.kind if row.here else "not fetched yet",
        row.license,
    )
    digest = f"sha256 {row.sha256[:12]}" if row.sha256 else ""
    return (row.name, size(row.bytes), *(printable(text, MAX_CELLS) for text in about), digest)


def _print_ending(rows: Sequence[Row]) -> None:
    unknown = [row for row in rows if row.here and not row.wrong and not row.sha256]
    if unknown:
        whole = size(sum(row.bytes for row in unknown))
        click.echo(
            f"Without a sha256: not known yet. To read these files ({whole}) for it: selfloop "
            "models --sha256"
        )
    click.echo("A recipe writes the name as backend.model; `selfloop ask NAME QUESTION` tries it.")


def _searched(store: ModelStore) -> str:
    """Return the folders of a store as a line lists them."""
    return ", ".join(with_absence(folder) for folder in store.folders())


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer the command."""
    return [command]
