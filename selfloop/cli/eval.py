"""`selfloop eval RECIPE|MODEL --data ...` and `selfloop eval RUN`"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfloop.cli.closed_book import Answering, answering, closed_book, kept_input, refuse_ignored
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
from selfloop.cli.required import (
    Requirement,
    fail_over,
    fail_under,
    figures,
    known_names,
    refuse_short,
    refuse_unknown,
    required,
)
from selfloop.cli.tables import print_table
from selfloop.config.defaults import DATASET_SOURCE
from selfloop.text.display import printable

if TYPE_CHECKING:
    from selfloop.data import Table
    from selfloop.data.raw import Cells
    from selfloop.evaluation.gold import Match
    from selfloop.evaluation.metrics import Estimate

HUB = "hf:"
CHOICES = "truthful_qa"
CHOICE_FIGURES = ("questions", "failed", "mc1", "mc1.low", "mc1.high", "mc2", "mc2.low", "mc2.high")


@click.command("eval")
@click.argument("what", metavar="RECIPE|MODEL|RUN", shell_complete=complete_asked)
@click.option(
    "--data",
    metavar="FILE|hf:NAME[:SPLIT]",
    help="Questions with gold answers: a file, or a data set.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Ask so many, drawn at random, always the same."
)
@click.option(
    "--match",
    metavar="RULE",
    default="exact",
    show_default=True,
    help="How an answer is compared with gold answers: exact, squad, contains, f1:0.5, numeric:0.01.",
)
@question_column
@answers_column
@skip_broken
@overrides
@runs_dir
@fail_under
@fail_over
@accept_license
@as_json
def command(
    what: str,
    data: str | None,
    limit: int | None,
    match: str,
    question_column: str,
    answers_column: str,
    skip_broken: bool,
    overrides: tuple[str, ...],
    runs: Path,
    fail_under: tuple[str, ...],
    fail_over: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure how well a model knows what it knows, by gold answers.

    RECIPE (a .yaml file) or MODEL (a name or a .gguf file) answers the questions of --data,
    closed-book, in a new run; so does RUN (the folder of a run) by its own recipe, with the adapter
    that it was tuned to last. Without --data, RUN is measured as it is, without the model.

    FILE has rows with a question and its gold answers: JSONL, JSON, CSV, TSV or Parquet, also as
    .gz, the file of a data set as its authors give it out, a folder of `datasets`, or - for
    standard input. Which column was taken for what is said on standard error. hf:NAME is a data set
    of the hub: nq_open, trivia_qa, web_questions, popqa, simpleqa, truthful_qa.

    RULE is exact (the same answer by the house rule), squad (by the published SQuAD rule), contains
    (a gold answer stands in it), f1:T (token F1 of at least T) or numeric:T (its number is off by
    at most the share T).

    Printed are accuracy, how well each verifier tells right from wrong, and what the decisions
    bring, with intervals.

    \b
    Examples:
      selfloop eval smollm2-135m-instruct --data questions.jsonl
      selfloop eval quickstart --data hf:popqa --limit 500
      selfloop eval runs/quickstart
      selfloop eval quickstart --data questions.jsonl --fail-under accuracy=0.6 --fail-over failed=0
    """
    from selfloop.evaluation.gold import match_named

    chosen = match_named(match)
    requirements = required(fail_under, fail_over)
    if data is None:
        if overrides or limit or question_column or answers_column or skip_broken:
            raise click.UsageError(
                "--set, --limit and the options for columns change what is asked, so they need "
                "--data."
            )
        _report(_finished(what, runs), chosen, as_json, requirements)
        return
    refuse_ignored(overrides)
    source: dict[str, Any] = {"kind": DATASET_SOURCE, "limit": limit}
    path = None
    if data.startswith(HUB):
        name, _, split = data.removeprefix(HUB).partition(":")
        source |= {"name": name, "split": split}
    else:
        path = kept_input(Path(data), runs)
        source |= {"path": str(path.absolute()), "skip_broken": skip_broken}
        source |= {"question_column": question_column, "answers_column": answers_column}
    if choices := _choices(source, path):
        _multiple_choice(answering(what), overrides, choices, limit, as_json, requirements)
        return
    if requirements:
        refuse_unknown(requirements, known_names(answering(what), overrides))
    table = _questions(source, path)
    count, pinned = len(table.questions), {"data": table.plain()}
    folder = played(
        closed_book,
        what,
        source,
        count,
        overrides,
        runs,
        name=_name(data),
        quiet=as_json,
        pinned=pinned,
    )
    _report(folder, chosen, as_json, requirements)


def _finished(what: str, runs: Path) -> Path:
    from selfloop.errors import RecipeError
    from selfloop.storage.store import DATABASE

    if not any((folder / DATABASE).is_file() for folder in (Path(what), runs / what)):
        raise RecipeError(
            f"no run {what}. To measure a recipe or a model, give --data FILE or --data {HUB}NAME "
            "too."
        )
    return run_folder(what, runs)


def _choices(source: dict[str, Any], path: Path | None) -> "list[Cells]":
    """Return the rows of a data set in multiple choice; none of any other."""
    from selfloop.data import fetch, rows
    from selfloop.errors import RecipeError

    if source.get("name") == CHOICES:
        from selfloop.evaluation.multiple_choice import CONFIG, REPOSITORY, SPLIT

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


def _report(
    folder: Path, match: "Match", as_json: bool, requirements: Sequence[Requirement] = ()
) -> None:
    """Measure the run, leave the results in its folder, and print them.

    Raises StepFailed for a run in which a step failed throughout, BelowRequired if a figure does
    not reach what is required of it; both when all is printed.
    """
    from pydantic_core import to_json

    from selfloop.errors import MissingExtra, RecipeError, StoreError
    from selfloop.evaluation.evaluate import evaluate
    from selfloop.failed_steps import failed_steps, refuse_failed
    from selfloop.storage.parquet import save
    from selfloop.storage.store import Store, declining_as_in

    store = Store(folder, write=False)
    files, missing, unstored = list[Path](), "", ""
    try:
        meta, rounds = store.meta(), list(store.rounds())
        with declining_as_in(folder):
            report = evaluate(rounds, match)
        model, account = meta.get("model", {}).get("name", ""), meta.get("data")
        refuse_failed(folder, rounds, ())
        if not report.questions:
            raise RecipeError(_nothing(folder))
        data = {"data": account} if account else {}
        found = {"run": str(folder), "model": model, **data, **report.plain()}
        told = figures(found)
        refuse_unknown(requirements, told)
        text = to_json(found, indent=2).decode()
        try:
            store.save_file("eval.json", text + "\n")
            files.append(folder / "eval.json")
            save(folder / "eval.parquet", report.columns())
            files.append(folder / "eval.parquet")
        except MissingExtra as error:
            missing = str(error)
        except StoreError as error:  # a run that may only be read
            unstored = f"the results could not be stored in the run's folder: {error}"
    finally:
        store.close()
    if as_json:
        click.echo(text)
    else:
        _print(report, model, match)
        if account:
            click.echo(_account(account))
        if files:
            click.echo(f"All intervals, and what to plot: {', '.join(map(str, files))}")
        click.echo(missing, nl=bool(missing))
    if unstored:
        click.echo(f"selfloop: {printable(unstored, 400)}", err=True)
    refuse_failed(folder, rounds, [step for step in failed_steps(rounds) if step.step != "tune"])
    refuse_short(requirements, told)


def played(play: Callable[..., Path], *arguments: Any, **options: Any) -> Path:
    """Return the folder of the run that `play` plays, also where a step of it failed: `_report` says so."""
    from selfloop.errors import NothingAnswered, StepFailed

    try:
        return play(*arguments, **options)
    except NothingAnswered:
        raise
    except StepFailed as failed:
        return failed.folder


def _nothing(folder: Path) -> str:
    return f"no question of {folder} that was answered has a gold answer. If it was stopped: selfloop resume {folder}"


def _account(rows: dict[str, Any]) -> str:
    """Return what became of the rows of the data, in a line."""
    lost = [f"{one['rows']:,} {one['reason']}" for one in rows["left_out"]]
    merged = [f"{rows['merged']:,} merged with one that asks the same"] if rows["merged"] else []
    drawn = [f"{rows['questions']:,} drawn at random"] if rows["limit"] else []
    counts = ", ".join([*drawn, *(f"left out: {each}" for each in lost), *merged]) or "all asked"
    return f"{printable(rows['file'])}: {rows['rows']:,} rows, {counts}"


def _print(report: Any, model: str, match: "Match") -> None:
    left = [(report.failed, "failed"), (report.without_gold, "without gold answer, not counted")]
    notes = "".join(f", {count} {what}" for count, what in left if count)
    click.echo(f"{printable(model)}: {report.questions} questions{notes}")
    draft, chosen = report.accuracy["draft"], report.accuracy["chosen"]
    revised = f" (drafts {_shown(draft)})" if draft != chosen else ""
    click.echo(f'accuracy {_shown(chosen)}{revised}, "I don\'t know" {report.silent:.0%}')
    click.echo(f"right is what is {match.says} (--match {match.name})")
    rows = [
        (
            name,
            _shown(one.metrics["auroc"]),
            *_values(one.metrics, "aurc", "ece", "brier"),
            f"{one.abstains:.0%}",
        )
        for name, one in {"confidence": report.confidence, **report.verifiers}.items()
    ]
    columns = ["", "AUROC", "AURC", "ECE", "Brier", "abstains"]
    print_table(columns, rows, title="what tells right from wrong")
    policies = report.policies
    rows = [
        (
            name.replace("_", " "),
            _shown(own),
            *(f"{policies[other][name].value:.2f}" for other in [*policies][1:]),
        )
        for name, own in policies["run"].items()
    ]
    table = [[_untold(cell) for cell in row] for row in rows]
    print_table(["", *policies], table, title="what its decisions bring")


def _values(metrics: "dict[str, Estimate]", *names: str) -> list[str]:
    return [_untold(f"{metrics[name].value:.2f}") for name in names]


def _shown(found: "Estimate") -> str:
    return _untold(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")


def _untold(text: str) -> str:
    return "-" if text.startswith("nan") else text


def _multiple_choice(
    who: Answering,
    overrides: tuple[str, ...],
    rows: "list[Cells]",
    limit: int | None,
    as_json: bool,
    requirements: Sequence[Requirement],
) -> None:
    """Read the choices; this is no run, and leaves nothing behind."""
    from tempfile import TemporaryDirectory

    from pydantic_core import to_json

    from selfloop.config.assembly import assemble, check
    from selfloop.config.recipe import read
    from selfloop.config.yaml_source import refuse_overrides
    from selfloop.data import sample
    from selfloop.errors import NothingAnswered, RecipeError
    from selfloop.evaluation.multiple_choice import items, score
    from selfloop.runner import pin_model
    from selfloop.storage.store import Store

    applied = "multiple choice applies only backend, plugins and the prompt `answer`: nothing is generated or judged."
    refuse_overrides(
        overrides, ("backend", "plugins", "prompts.answer"), only=True, because=applied
    )
    refuse_unknown(requirements, CHOICE_FIGURES)
    wanted = items(sample(rows, limit))
    loaded = read(who.recipe, (*who.overrides, *overrides, "observers=[]", "tuner=null"), who.base)
    check(loaded)
    kind = loaded.recipe.backend.kind
    if "loglikelihood" not in loaded.catalog.find("backend", kind).gives:
        able = sorted(
            p.component.name
            for k, p in loaded.catalog
            if k == "backend" and "loglikelihood" in p.component.gives
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
            report = score(
                wanted,
                parts.backend,
                lambda name, **v: parts.prompts.render(name, chat=info.chat, **v),
            )
        finally:
            parts.close()
            store.close()
    if not report.questions:
        why = f"not one of the {report.failed} questions was answered: the model could not read every choice of any."
        raise NothingAnswered(
            f"{why} Raise backend.n_ctx, or see the model with `selfloop doctor`.", Path()
        )
    measured = {"mc1": report.mc1._asdict(), "mc2": report.mc2._asdict()}
    found = {"model": info.name, "questions": report.questions, "failed": report.failed, **measured}
    if as_json:
        click.echo(to_json(found, indent=2, inf_nan_mode="null"))
    else:
        failed = f", {report.failed} failed" if report.failed else ""
        click.echo(f"{info.name}: {report.questions} questions{failed}")
        click.echo(f"MC1 {_shown(report.mc1)}\nMC2 {_shown(report.mc2)}")
    refuse_short(requirements, figures(found))
