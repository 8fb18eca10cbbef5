"""`selfloop dataset`: the answers of a run as a data set, with a card that states its limits.

From Python, `rows(folder, form="sft")` gives the same rows.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from selfloop import hookimpl
from selfloop.cli.options import FilePath, as_json, run_argument, run_folder, runs_dir
from selfloop.errors import MissingExtraError, SelfloopError, did_you_mean
from selfloop.records import Decision
from selfloop.storage import atomic
from selfloop.text.answers import UNKNOWN, declines

if TYPE_CHECKING:
    from selfloop import Run

Row = dict[str, Any]
Form = Literal["qa", "sft", "preference"]
# the decisions that a form can hold; of an undecided question nothing can be learnt
DECISIONS: dict[Form, tuple[Decision, ...]] = {
    "qa": get_args(Decision),
    "sft": ("belief", "declined"),
    "preference": ("belief", "declined"),
}
UNASKED = ("dropped", "failed")  # decisions that are left out unless --only names them
SPLIT = "train"  # the name that loaders expect of a data set's only part


def rows(
    folder: Path | str, form: Form = "qa", *, only: Collection[Decision] = (), chat: bool = False
) -> list[Row]:
    """Return the answers of the run in `folder`, a row a question. Raises SelfloopError.

    `qa` has all columns of `selfloop.Run.rows`. `sft` has `prompt` and `completion`: the answer
    where it is believed, "I don't know" where it was declined. `preference` has `prompt`, `chosen`
    and `rejected`: the answer above "I don't know" where it is believed, and the other way round
    where it was declined; where the model declined by itself, or wrote a text that is no answer,
    there is no pair. With `chat` each of them is a list of messages. `only` are the decisions that
    are wanted.
    """
    import selfloop

    return _formed(selfloop.open(folder), form, only, chat)


def _formed(run: "Run", form: Form, only: Collection[Decision], chat: bool) -> list[Row]:
    decisions = only or [decision for decision in DECISIONS[form] if decision not in UNASKED]
    run_rows = run.rows(decisions)
    if form == "qa":
        return run_rows
    from selfloop.storage.store import declining_as_in

    # the recipe of the run may name patterns of its own by which an answer declines
    convert = _sft_rows if form == "sft" else _preference_rows
    formed: list[Row] = []
    with declining_as_in(run.folder):
        for run_row in run_rows:
            formed.extend(convert(run_row))
    return [_messages(row) for row in formed] if chat else formed


def _sft_rows(row: Row) -> Iterator[Row]:
    """Yield the answer that is believed, or that declines."""
    yield {"prompt": row["question"], "completion": row["answer"]}


def _preference_rows(row: Row) -> Iterator[Row]:
    """Yield the better of draft and declining above the other; nothing where the draft declines by
    itself, or is not an answer."""
    # its patterns take a while to compile, which --help must not pay
    from selfloop.text.nonanswers import non_answer

    if declines(row["drafted"]) or non_answer(row["question"], row["drafted"]) is not None:
        return
    if row["decision"] == "belief":
        yield {"prompt": row["question"], "chosen": row["answer"], "rejected": UNKNOWN}
    else:
        yield {"prompt": row["question"], "chosen": UNKNOWN, "rejected": row["drafted"]}


def _messages(row: Row) -> Row:
    """Return a row of texts as one of chat messages: the prompt is the user's."""
    messages: Row = {}
    for name, text in row.items():
        role = "user" if name == "prompt" else "assistant"
        messages[name] = [{"role": role, "content": text}]
    return messages


# --- writing them


def _write_jsonl(part: Path, rows: Sequence[Row]) -> None:
    with (part / f"{SPLIT}.jsonl").open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(part: Path, rows: Sequence[Row]) -> None:
    from selfloop.storage.parquet import save

    columns: dict[str, list[Any]] = {}
    for name in rows[0]:  # all rows have the same columns
        columns[name] = [row[name] for row in rows]
    save(part / f"{SPLIT}.parquet", columns)


def _write_hf(part: Path, rows: Sequence[Row]) -> None:
    datasets = _datasets()
    datasets.disable_progress_bars()  # selfloop draws its own
    datasets.Dataset.from_list(list(rows)).save_to_disk(str(part))


def _datasets() -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise MissingExtraError("datasets", "datasets", "--to hf") from error


WRITERS: Mapping[str, Callable[[Path, Sequence[Row]], None]] = {
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
    "hf": _write_hf,
}


def _is_earlier_dataset(out: Path) -> bool:
    """Return whether a folder is a data set that was written before: it has a card and rows."""
    from selfloop_plugins._shared.output import has_card

    # one file of each format; a card alone could be of a model
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    return bool(names & {f"{SPLIT}.jsonl", f"{SPLIT}.parquet", "dataset_info.json"}) and has_card(
        out
    )


def write_dataset(
    run: "Run", to: str, out: Path, rows: Sequence[Row], form: Form, *, force: bool
) -> None:
    """Write rows and their card as the folder `out`, whole or not at all. Raises SelfloopError."""
    from selfloop_plugins._shared.cards import NAME
    from selfloop_plugins._shared.output import refuse_taken_folder, writing

    from .dataset_card import card

    about = card(run, form, to, rows)
    refuse_taken_folder(out, "data set", force=force, ours=_is_earlier_dataset)
    with writing(out), atomic.replacing_folder(out) as part:
        WRITERS[to](part, rows)
        (part / NAME).write_text(about, encoding="utf-8", newline="\n")


def _decisions(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[Decision, ...]:
    """Read decisions that are separated by commas."""
    decisions = get_args(Decision)
    names = [name.strip() for name in (value or "").split(",") if name.strip()]
    for name in names:
        if name not in decisions:
            raise click.BadParameter(
                f"{name!r} is none.{did_you_mean(name, decisions)} Known: {', '.join(decisions)}."
            )
    return tuple(decision for decision in decisions if decision in names)


@click.command("dataset")
@run_argument
@click.option(
    "--to", type=click.Choice(list(WRITERS)), required=True, help="The format of the rows."
)
@click.option(
    "--out", type=FilePath(path_type=Path), help="The folder; by default RUN-FORM in this one."
)
@click.option(
    "--form",
    type=click.Choice(list(DECISIONS)),
    default="qa",
    show_default=True,
    help="The content of a row.",
)
@click.option(
    "--only", metavar="DECISION,...", callback=_decisions, help="Only questions that ended so."
)
@click.option("--chat", is_flag=True, help="Of sft and preference: chat messages in place of text.")
@click.option("--force", is_flag=True, help="Replace an earlier data set.")
@runs_dir
@as_json
def command(
    run: str,
    to: str,
    out: Path | None,
    form: Form,
    only: tuple[Decision, ...],
    chat: bool,
    force: bool,
    runs: Path,
    as_json: bool,
) -> None:
    """Write the results of a run as a data set, with a card.

    RUN is a folder, or a name in --runs. qa: a row a question, with all that is known of it. sft:
    prompt and completion, "I don't know" where it was declined. preference: prompt, chosen and
    rejected. jsonl and parquet are files that any loader takes; hf is a folder for load_from_disk
    of the library datasets.

    \b
    Examples:
      selfloop dataset quickstart --to jsonl
      selfloop dataset quickstart --to parquet --form preference --only belief,declined
    """
    import selfloop

    if chat and form == "qa":
        raise click.UsageError(
            "--chat is for --form sft and preference: a row of qa has columns, not messages"
        )
    lost = [decision for decision in only if decision not in DECISIONS[form]]
    if lost:
        holds = " and ".join(DECISIONS[form])
        raise click.UsageError(
            f"--form {form} has no row for {lost[0]} questions: nothing can be learnt from them. "
            f"It has {holds}"
        )
    if to == "hf":
        _datasets()  # a missing package is reported before anything is read
    opened = selfloop.open(run_folder(run, runs))
    out = out or Path(f"{opened.folder.resolve().name}-{form}")
    dataset_rows = _formed(opened, form, only, chat)
    if not dataset_rows:
        raise SelfloopError(
            f"no row to write, so there is no {out}. See the run: selfloop show {opened.folder}"
        )
    write_dataset(opened, to, out, dataset_rows, form, force=force)
    if as_json:
        report = {"path": str(out), "to": to, "form": form, "rows": len(dataset_rows)}
        click.echo(json.dumps(report))
        return
    count = f"{len(dataset_rows):,} row" + ("" if len(dataset_rows) == 1 else "s")
    click.echo(f"Written, {count} and a card: {out}")


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer the command."""
    return [command]
