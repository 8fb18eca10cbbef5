"""Data sets of the Hugging Face hub by short names, with the split that is usually evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from selfloop.data.raw import Cells
from selfloop.errors import MissingExtraError, RecipeError, did_you_mean


@dataclass(frozen=True)
class Hub:
    """Where a data set lies on the hub, and its split with answers."""

    repository: str
    config: str | None
    split: str


SETS: Mapping[str, Hub] = {
    # Natural Questions, open (Kwiatkowski et al. 2019; Lee et al. 2019, arXiv 1906.00300)
    "nq_open": Hub("google-research-datasets/nq_open", None, "validation"),
    # Joshi et al. 2017, arXiv 1705.03551
    "trivia_qa": Hub("mandarjoshi/trivia_qa", "rc.nocontext", "validation"),
    # Berant et al. 2013, aclanthology.org/D13-1160
    "web_questions": Hub("stanfordnlp/web_questions", None, "test"),
    # Mallen et al. 2022, arXiv 2212.10511
    "popqa": Hub("akariasai/PopQA", None, "test"),
    # Wei et al. 2024, arXiv 2411.04368; compared like the others, not by the paper's judge
    "simpleqa": Hub("basicv8vc/SimpleQA", None, "test"),
}


def known(name: str) -> Hub:
    """Return the data set of that name. Raises RecipeError if there is none."""
    if name not in SETS:
        raise RecipeError(
            f"no data set named {name!r}.{did_you_mean(name, SETS)} Known: {', '.join(SETS)}."
        )
    return SETS[name]


def fetch(repository: str, config: str | None, split: str) -> list[Cells]:
    """Return the rows of a data set of the hub; the library `datasets` caches its downloads.

    Raises MissingExtraError without that library, RecipeError if it cannot get the data.
    """
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise MissingExtraError("datasets", "datasets", f"the data set {repository}") from error
    try:
        return list(datasets.load_dataset(repository, config, split=split))
    except Exception as error:  # the library's own, and those of its dependencies
        raise RecipeError(
            f"cannot get {repository}, split {split}, from the Hugging Face hub: "
            f"{str(error).rstrip('.')}. Without a "
            "network, bring its cache (HF_HOME) from a machine that has one, or save its rows "
            "there and give the file."
        ) from error
