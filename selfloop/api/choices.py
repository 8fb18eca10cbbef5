"""Multiple choice for `selfloop.evaluate`: TruthfulQA's MC1 and MC2, read by log-likelihood."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from selfloop import data as question_data
from selfloop.api.answerer import Answerer
from selfloop.config.assembly import assemble, check
from selfloop.config.prompts import Prompt
from selfloop.config.recipe import LoadedRecipe, read
from selfloop.config.yaml_source import refuse_overrides
from selfloop.data.raw import Cells
from selfloop.errors import NothingAnsweredError, RecipeError
from selfloop.evaluation import multiple_choice
from selfloop.evaluation.metrics import Estimate
from selfloop.evaluation.requirements import Requirement, figures, refuse_short, refuse_unknown
from selfloop.runner import pin_model
from selfloop.storage.store import Store

HUB_NAME = "truthful_qa"
MARK = "mc1_targets"  # a column that only such data has
FIGURES = ("questions", "failed", "mc1", "mc1.low", "mc1.high", "mc2", "mc2.low", "mc2.high")
APPLIED = ("backend", "plugins", "prompts.answer")


@dataclass(frozen=True)
class ChoiceEvaluation:
    """MC1 and MC2 of a model, with intervals. It is not a run, and nothing is kept of it.

    `failed` counts the questions of which the model could not read some choice.
    """

    model: str
    questions: int
    failed: int
    mc1: Estimate
    mc2: Estimate

    def plain(self) -> dict[str, Any]:
        """Return the evaluation as data for JSON."""
        return {
            "model": self.model,
            "questions": self.questions,
            "failed": self.failed,
            "mc1": self.mc1._asdict(),
            "mc2": self.mc2._asdict(),
        }

    def figures(self) -> dict[str, float | None]:
        """Return every number of `plain` by its dotted name."""
        return figures(self.plain())

    def require(self, requirements: Sequence[Requirement]) -> None:
        """Raise BelowRequiredError where a figure does not meet its bound."""
        refuse_short(requirements, self.figures())

    def raise_for_failures(self) -> None:
        """Do nothing: where every question failed there is no evaluation."""


def choice_rows(path: Path | None, name: str = "", split: str = "") -> list[Cells]:
    """Return the rows of data in multiple choice; none for any other data.

    The data is a file, or with `path` None the data set `name` of the hub.
    """
    if name == HUB_NAME:
        default = multiple_choice.SPLIT
        return question_data.fetch(
            multiple_choice.REPOSITORY, multiple_choice.CONFIG, split or default
        )
    if path is None:
        return []
    try:
        rows: list[Cells] = [*question_data.rows(path)]
    except RecipeError:
        return []  # it is read again as questions, and refused then
    return rows if rows and MARK in rows[0] else []


def evaluate_choices(
    who: Answerer,
    rows: Sequence[Cells],
    overrides: tuple[str, ...],
    limit: int | None,
    requirements: Sequence[Requirement] = (),
) -> ChoiceEvaluation:
    """Let a model read every choice of every question.

    Raises RecipeError for a backend without log-likelihoods, and NothingAnsweredError where the
    model could not read every choice of any question.
    """
    refuse_overrides(
        overrides,
        APPLIED,
        only=True,
        because="multiple choice applies only backend, plugins and the prompt `answer`: nothing is "
        "generated or judged.",
    )
    refuse_unknown(requirements, FIGURES)
    items = multiple_choice.items(question_data.sample(rows, limit))
    # Observers and tuners have nothing to do, and could fail.
    settings = (*who.overrides, *overrides, "observers=[]", "tuner=null")
    loaded = read(who.recipe, settings, who.base, text=who.text)
    check(loaded)
    _refuse_without_loglikelihood(loaded)
    name, report = _scored(who, loaded, items)
    if not report.questions:
        raise NothingAnsweredError(
            f"not one of the {report.failed} questions was answered: the model could not read "
            "every choice of any. Raise backend.n_ctx, or see the model with `selfloop doctor`.",
            Path(),
        )
    return ChoiceEvaluation(name, report.questions, report.failed, report.mc1, report.mc2)


def _scored(
    who: Answerer, loaded: LoadedRecipe, items: Sequence[multiple_choice.Item]
) -> tuple[str, multiple_choice.Report]:
    """Return the model's name and the report; the model is pinned as in a run."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with closing(Store(folder, write=True)) as store:
            # The model and the adapter of a run are pinned here too.
            store.set_meta(**who.pinned)
            parts = assemble(loaded, folder, store)
            try:
                info = parts.backend.describe()
                pin_model(parts, store)  # raises where the model is another than the run's
                adapter = store.active_adapter([])
                if adapter:
                    parts.load_adapter(adapter)

                def prompt(name: str, **values: Any) -> Prompt:
                    return parts.prompts.render(name, chat=info.chat, **values)

                return info.name, multiple_choice.score(items, parts.backend, prompt)
            finally:
                parts.close()


def _refuse_without_loglikelihood(loaded: LoadedRecipe) -> None:
    kind = loaded.recipe.backend.kind
    if "loglikelihood" in loaded.catalog.find("backend", kind).gives:
        return
    able = sorted(
        offer.component.name
        for offered_kind, offer in loaded.catalog
        if offered_kind == "backend" and "loglikelihood" in offer.component.gives
    )
    raise RecipeError(
        f"multiple choice needs loglikelihood, which the backend {kind} lacks. Take one that has "
        f"it: {', '.join(able)}."
    )
