"""`selfloop eval RECIPE|MODEL --data ...` and `selfloop eval RUN`"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfloop.cli.closed_book import Answering, answering, closed_book, kept_input
from selfloop.cli.options import (
    accept_license,
    answers_column,
    as_json,
    complete_asked,
    overrides,
    question_column,
    run_folder,
    runs_dir,
    skip_broken,
)

if TYPE_CHECKING:
    from selfloop.data import Table
    from selfloop.data.raw import Cells
    from selfloop.metrics import Estimate

HUB = "hf:"
CHOICES = "truthful_qa"


@click.command("eval")
@click.argument("what", metavar="RECIPE|MODEL|RUN", shell_complete=complete_asked)
@click.option("--data", metavar="FILE|hf:NAME[:SPLIT]", help="Questions with gold answers: a file, or a data set.")
@click.option("--limit", type=click.IntRange(min=1), help="Ask so many, drawn at random, always the same.")
@question_column
@answers_column
@skip_broken
@overrides
@runs_dir
@accept_license
@as_json
def command(
    what: str,
    data: str | None,
    limit: int | None,
    question_column: str,
    answers_column: str,
    skip_broken: bool,
    overrides: tuple[str, ...],
    runs: Path,
    as_json: bool,
) -> None:
    """Measure how well a model knows what it knows, by gold answers.

    RECIPE (a .yaml file) or MODEL (a name or a .gguf file) answers the questions of --data, closed-book, in a new run;
    so does RUN (the folder of a run) by its own recipe, with the adapter that it was tuned to last. Without --data, RUN
    is measured as it is, without the model.

    FILE has rows with a question and its gold answers: JSONL, JSON, CSV, TSV or Parquet, also as .gz, the file of a
    data set as its authors give it out, a folder of `datasets`, or - for standard input. Which column was taken for
    what is said on standard error. hf:NAME is a data set of the hub: nq_open, trivia_qa, web_questions, popqa,
    simpleqa, truthful_qa.

    Printed are accuracy, how well each verifier tells right from wrong, and what the decisions bring, with intervals.

    \b
    Examples:
      selfloop eval smollm2-135m-instruct --data questions.jsonl
      selfloop eval quickstart --data hf:popqa --limit 500
      selfloop eval runs/quickstart
    """
    if data is None:
        if overrides or limit or question_column or answers_column or skip_broken:
            raise click.UsageError(
                "--set, --limit and the options for columns change what is asked, so they need --data."
            )
        _report(_finished(what, runs), as_json)
        return
    source: dict[str, Any] = {"kind": "dataset", "limit": limit}
    path = None
    if data.startswith(HUB):
        name, _, split = data.removeprefix(HUB).partition(":")
        source |= {"name": name, "split": split}
    else:
        path = kept_input(Path(data), runs)
        source |= {"path": str(path.absolute()), "skip_broken": skip_broken}
        source |= {"question_column": question_column, "answers_column": answers_column}
    if choices := _choices(source, path):
        _multiple_choice(answering(what), overrides, choices, limit, as_json)
        return
    table = _questions(source, path)
    pinned = {"data": table.plain()}
    count = len(table.questions)
    _report(closed_book(what, source, count, overrides, runs, name=_name(data), quiet=as_json, pinned=pinned), as_json)


def _finished(what: str, runs: Path) -> Path:
    from selfloop.errors import RecipeError
    from selfloop.store import DATABASE

    if not any((folder / DATABASE).is_file() for folder in (Path(what), runs / what)):
        raise RecipeError(f"no run {what}. To measure a recipe or a model, give --data FILE or --data {HUB}NAME too.")
    return run_folder(what, runs)


def _choices(source: dict[str, Any], path: Path | None) -> "list[Cells]":
    """Return the rows of a data set in multiple choice; none of any other."""
    from selfloop.data import fetch, rows
    from selfloop.errors import RecipeError

    if source.get("name") == CHOICES:
        from selfloop.multiple_choice import CONFIG, REPOSITORY, SPLIT

        return fetch(REPOSITORY, CONFIG, source["split"] or SPLIT)
    if path is None:
        return []
    try:
        found: list[Cells] = [*rows(path)]
    except RecipeError:
        return []  # it is read again as questions, and refused then
    return found if found and "mc1_targets" in found[0] else []


def _questions(source: dict[str, Any], path: Path | None) -> "Table":
    """Return the questions of a source, as the source itself takes them: a run says beforehand how many it will ask."""
    from selfloop.data import Columns, read, read_hub

    if path is not None:
        wanted = Columns(source["question_column"], source["answers_column"])
        table = read(path, "eval", wanted, skip_broken=source["skip_broken"])
    else:
        table = read_hub(source["name"], source["split"])
    return table.sampled(source["limit"])


def _name(data: str) -> str:
    stem = "stdin" if data == "-" else Path(data.removeprefix(HUB)).stem
    return f"eval-{re.sub('[^A-Za-z0-9._-]+', '-', stem)[:60]}"


def _report(folder: Path, as_json: bool) -> None:
    """Measure the run, leave the results in its folder, and print them."""
    from pydantic_core import to_json

    from selfloop.errors import MissingExtra, RecipeError
    from selfloop.evaluate import evaluate
    from selfloop.rows import save
    from selfloop.store import Store

    store = Store(folder, write=False)
    try:
        meta = store.meta()
        report, model, rows = evaluate(store.rounds()), meta.get("model", {}).get("name", ""), meta.get("data")
        if not report.questions:
            raise RecipeError(_nothing(folder, report.failed))
        found = {"run": str(folder), "model": model, **({"data": rows} if rows else {}), **report.plain()}
        text = to_json(found, indent=2).decode()
        store.save_file("eval.json", text + "\n")
    finally:
        store.close()
    files, missing = [folder / "eval.json"], ""
    try:
        save(folder / "eval.parquet", report.columns())
        files.append(folder / "eval.parquet")
    except MissingExtra as error:
        missing = str(error)
    if as_json:
        click.echo(text)
        return
    _print(report, model)
    if rows:
        click.echo(_account(rows))
    click.echo(f"All intervals, and what to plot: {', '.join(map(str, files))}")
    click.echo(missing, nl=bool(missing))


def _nothing(folder: Path, failed: int) -> str:
    if failed:
        return f"all {failed} questions of {folder} failed. Why: selfloop show {folder} --failures"
    return f"no question of {folder} that was answered has a gold answer. If it was stopped: selfloop resume {folder}"


def _account(rows: dict[str, Any]) -> str:
    """Return what became of the rows of the data, in a line."""
    from selfloop.text import printable

    lost = [f"{one['rows']:,} {one['reason']}" for one in rows["left_out"]]
    merged = [f"{rows['merged']:,} merged with one that asks the same"] if rows["merged"] else []
    drawn = [f"{rows['questions']:,} drawn at random"] if rows["limit"] else []
    counts = ", ".join([*drawn, *(f"left out: {each}" for each in lost), *merged]) or "all asked"
    return f"{printable(rows['file'])}: {rows['rows']:,} rows, {counts}"


def _print(report: Any, model: str) -> None:
    from selfloop.text import printable

    left = [(report.failed, "failed"), (report.without_gold, "without gold answer, not counted")]
    notes = "".join(f", {count} {what}" for count, what in left if count)
    click.echo(f"{printable(model)}: {report.questions} questions{notes}")
    draft, chosen = report.accuracy["draft"], report.accuracy["chosen"]
    revised = f" (drafts {_shown(draft)})" if draft != chosen else ""
    click.echo(f'accuracy {_shown(chosen)}{revised}, "I don\'t know" {report.silent:.0%}')
    rows = [
        (name, _shown(one.metrics["auroc"]), *_values(one.metrics, "aurc", "ece", "brier"), f"{one.abstains:.0%}")
        for name, one in {"confidence": report.confidence, **report.verifiers}.items()
    ]
    _table("what tells right from wrong", ["", "AUROC", "AURC", "ECE", "Brier", "abstains"], rows)
    policies = report.policies
    rows = [
        (name.replace("_", " "), _shown(own), *(f"{policies[other][name].value:.2f}" for other in [*policies][1:]))
        for name, own in policies["run"].items()
    ]
    _table("what its decisions bring", ["", *policies], [[_untold(cell) for cell in row] for row in rows])


def _values(metrics: "dict[str, Estimate]", *names: str) -> list[str]:
    return [_untold(f"{metrics[name].value:.2f}") for name in names]


def _shown(found: "Estimate") -> str:
    return _untold(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")


def _untold(text: str) -> str:
    return "-" if text.startswith("nan") else text


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, title=title, title_justify="left", padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def _multiple_choice(
    who: Answering, overrides: tuple[str, ...], rows: "list[Cells]", limit: int | None, as_json: bool
) -> None:
    """Read the choices; this is no run, and leaves nothing behind."""
    from tempfile import TemporaryDirectory

    from pydantic_core import to_json

    from selfloop.assemble import assemble, check
    from selfloop.data import sample
    from selfloop.errors import RecipeError
    from selfloop.multiple_choice import items, score
    from selfloop.recipe import read
    from selfloop.runner import pin_model
    from selfloop.store import Store

    wanted = items(sample(rows, limit))
    loaded = read(who.recipe, (*who.overrides, *overrides, "observers=[]", "tuner=null"), who.base)
    check(loaded)
    kind = loaded.recipe.backend.kind
    if "loglikelihood" not in loaded.catalog.find("backend", kind).gives:
        able = sorted(
            p.component.name for k, p in loaded.catalog if k == "backend" and "loglikelihood" in p.component.gives
        )
        lacks = f"which the backend {kind} lacks. Take one that has it: {', '.join(able)}."
        raise RecipeError(f"multiple choice needs loglikelihood, {lacks}")
    with TemporaryDirectory() as folder:
        store = Store(Path(folder), write=True)
        store.pin(**who.pinned)
        parts = assemble(loaded, Path(folder), store)
        try:
            info = parts.backend.describe()
            pin_model(parts, store)
            if adapter := store.in_effect([]):
                parts.load_adapter(adapter)
            report = score(wanted, parts.backend, lambda name, **v: parts.prompts.render(name, chat=info.chat, **v))
        finally:
            parts.close()
            store.close()
    if as_json:
        figures = {"mc1": report.mc1._asdict(), "mc2": report.mc2._asdict()}
        found = {"model": info.name, "questions": report.questions, "failed": report.failed, **figures}
        click.echo(to_json(found, indent=2, inf_nan_mode="null"))
        return
    click.echo(f"{info.name}: {report.questions} questions" + (f", {report.failed} failed" if report.failed else ""))
    click.echo(f"MC1 {_shown(report.mc1)}\nMC2 {_shown(report.mc2)}")
