"""`selfloop models`: every model on this disk by the name that a recipe calls it, and what its file says of itself."""

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

from . import locate as models
from .gguf_header import Header, header, parts
from .stores import PLACES, Found, Place, file_identity, ggufs, is_there

OWN = "selfloop"
# the hub and Ollama name what they keep by its hash
BLOB = re.compile(r"(?:sha256-)?([0-9a-f]{64})")
COLUMNS = ("", "size", "architecture", "weights", "kind", "license", "")
MOST = 60  # cells of an architecture or a licence, which a stranger may have written


@dataclass(frozen=True, slots=True)
class Row:
    """One model. `here`: it is on this disk; `wrong`: why it cannot be used; `kind`: chat, base, or
    neither.

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
    rows = [*_own(hashed), *_others(hashed), *_given(folders, hashed)]
    if as_json:
        looked = {place.prefix: [str(folder) for folder in place.folders()] for place in PLACES}
        click.echo(
            json.dumps({"models": [asdict(row) for row in rows], "looked": looked}, indent=2)
        )
        return
    for title in dict.fromkeys(row.place for row in rows):
        _print(title, [row for row in rows if row.place == title])
    for place in (one for one in PLACES if one.title not in {row.place for row in rows}):
        click.echo(f"nothing in {place.title}: {_looked(place)}\n")
    _print_ending(rows)


def _own(hashed: bool) -> Iterator[Row]:
    """Yield the models that selfloop can fetch itself, fetched or not."""
    for name, known in models.KNOWN.items():
        path, title = (
            models.cache() / "models" / known.file,
            f"{OWN}, which fetches these by itself",
        )
        if path.is_file():
            yield _row(Found(name, path), title, hashed, known.license)
        else:
            count, digest = known.megabytes * 10**6, known.sha256
            yield Row(name, title, str(path), False, count, license=known.license, sha256=digest)


def _others(hashed: bool) -> Iterator[Row]:
    for place in PLACES:
        yield from (_row(one, place.title, hashed) for _, one in sorted(place.found().items()))


def _given(folders: Sequence[Path], hashed: bool) -> Iterator[Row]:
    """Yield the models in this folder and below those named, each once."""
    files = {"this folder": sorted(Path().glob("*.gguf"))} | {
        str(folder): ggufs(folder) for folder in folders
    }
    listed: set[object] = set()
    for title, paths in files.items():
        for path in paths:
            if (identity := file_identity(path)) not in listed:
                listed.add(identity)
                yield _row(Found(str(path), path), title, hashed)


def _row(found: Found, place: str, hashed: bool, license: str = "") -> Row:
    """Return what a file says of itself, or why it cannot be used."""
    row = Row(found.name, place, str(found.path), wrong=found.wrong)
    if row.wrong:
        return row
    try:
        models.check_parts(found.path)
        files = parts(found.path)
        about, count = header(found.path), sum(file.stat().st_size for file in files)
        weights = about.parameters + sum(header(file).parameters for file in files[1:])
        digest = models.sha256(found.path) if hashed else _known(found.path)
    except (ModelError, OSError) as error:
        return Row(found.name, place, str(found.path), wrong=str(error))
    told = license or about.text("general.license")
    arch = about.architecture
    return Row(
        found.name,
        place,
        row.path,
        True,
        count,
        arch,
        weights,
        _kind(about),
        told,
        digest,
        unused=found.unused,
    )


def _known(path: Path) -> str | None:
    """Return a hash that needs no reading: one that was made before, or that the file is named by."""
    named = BLOB.fullmatch(path.resolve().name) if len(parts(path)) == 1 else None
    return models.known_sha256(path) or (named[1] if named else None)


def _kind(about: Header) -> str:
    if not about.language_model:
        return f"no model by itself ({about.text('general.type') or 'no architecture'})"
    return "chat" if about.chat else "base"


def _print(title: str, rows: Sequence[Row]) -> None:
    click.secho(printable(title), bold=True)
    whole = [row for row in rows if not row.wrong]
    if whole:
        print_table(COLUMNS, [_cells(row) for row in whole], left=len(COLUMNS), header=False)
    for row in (row for row in whole if row.unused):
        print_wrapped(
            f"of {printable(row.name)} not used: {printable(row.unused)}", first="  ", more="    "
        )
    for row in (row for row in rows if row.wrong):
        click.echo(f"  {printable(row.name)}")
        click.secho(f"    broken: {printable(row.wrong)}", fg="red")
        click.echo()


def _cells(row: Row) -> tuple[str, ...]:
    """Return what stands in a row's columns: a name is never cut, for it is to be copied."""
    about = (
        row.architecture,
        parameters(row.parameters),
        row.kind if row.here else "not fetched yet",
        row.license,
    )
    digest = f"sha256 {row.sha256[:12]}" if row.sha256 else ""
    return (row.name, size(row.bytes), *(printable(text, MOST) for text in about), digest)


def _print_ending(rows: Sequence[Row]) -> None:
    unknown = [row for row in rows if row.here and not row.wrong and not row.sha256]
    if unknown:
        whole = size(sum(row.bytes for row in unknown))
        click.echo(
            f"Without a sha256: not known yet. To read these files ({whole}) for it: selfloop "
            "models --sha256"
        )
    click.echo("A recipe writes the name as backend.model; `selfloop ask NAME QUESTION` tries it.")


def _looked(place: Place) -> str:
    return ", ".join(
        f"{folder}{'' if is_there(folder) else ' (not there)'}" for folder in place.folders()
    )


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer the command."""
    return [command]
