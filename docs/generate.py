"""Writes docs/recipe.md, docs/cli.md, and the second part of each page of docs/detectors/.

All of it comes from the code, and from the figures in docs/results/detectors.md. A page of a
detector begins with text by hand; a mark says where the generated part begins. `--check` only says
which is stale.

python docs/generate.py [--check]
"""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from selfloop.cli import COMMANDS, selfloop
from selfloop.config.components import (
    ComponentSpec,
    DetectorSpec,
    ScorerSpec,
    SourceSpec,
    TunerSpec,
)
from selfloop.config.options import describe_options, describe_type, describe_value
from selfloop.config.recipe import Answer, Ask, Decide, Recipe
from selfloop.protocols import CAPABILITIES
from selfloop.registry.manager import HOOKS, Provided, load

DOCS = Path(__file__).parent
MADE = "<!-- Written by docs/generate.py from the code: change that, then `make docs`. -->\n"
BELOW = (
    "<!-- From here on written by docs/generate.py from the code and docs/results/detectors.md: "
    "`make docs`. -->\n"
)

LETTERS = [
    "x is the prompt, y the answer, p_i the probability of its i-th token, s_1 … s_M the samples.",
]
MEASURED = [
    "AUROC, in brackets ECE. \\* is the best of all detectors, **bold** a combination above it. †",
    "judges the first 200 questions of each set only. The seconds are for a thousand answers, and",
    "come on top of answering. [The results](../results/detectors.md) have all detectors side by",
    "side, and the method.",
]
# the first cell of a table of one model: **gemma-3-270m**
MODEL_CELL = re.compile(r"\*\*[a-z0-9-]+-\d+m(-\w+)?\*\*")
FIGURE_COLUMNS = 7  # the detector, five sets of questions, seconds

# type in the code -> what a recipe's author reads
PARTS = {Ask: "see `ask`", Answer: "see `answer`", Decide: "see `decide`"}
SPECS = {
    ComponentSpec: "component",
    SourceSpec: "source",
    ScorerSpec: "scorer",
    DetectorSpec: "detector",
    TunerSpec: "tuner",
}
# what a key of the recipe means, where its type and name do not say so
MEANING = {
    "name": "the run's folder under `--runs`; default: the recipe's file name, made fit for a "
    "folder",
    "seed": "the model's texts depend on it",
    "rounds": "times through ask, answer, critique, revise, verify, decide, tune",
    "plugins": "`.py` files with plugins, relative to the recipe ([tutorial](plugins.md))",
    "backend": "the component that runs the model",
    "ask": "where questions come from",
    "answer": "how they are answered",
    "critique": "who criticises drafts, so that the model answers again; `none`: nobody",
    "few_shot": "the few-shot examples, in place of those of the prompt `answer`",
    "detectors": "who says how likely an answer is to be true; the last that can tell decides",
    "decide": "the thresholds of the decisions",
    "tuner": "the component that trains the model on its beliefs",
    "observers": "who shows and logs the run",
    "prompts": "name of a prompt -> your own text file in its place, relative to the recipe",
    "ask.questions": "questions a round",
    "ask.sources": "question sources; each may have a `weight`",
    "ask.scorers": "the scorers that a question passes; each may have a `min_score`",
    "ask.max_turns": "calls of the sources in one round, at most, until there are enough questions",
    "ask.with": "the model that sources and scorers use after a tune",
    "answer.max_tokens": "tokens of an answer",
    "answer.samples": "answers drawn for each question, beside the greedy draft",
    "answer.temperature": "of the samples; the draft is greedy",
    "answer.top_p": "of the samples",
    "answer.thought_tokens": 'for a marked thought ("<think>"), before `max_tokens` and `stop` '
    "count; 0: none",
    "answer.stop": "an answer ends before the first of these",
    "answer.decline_bias": "added to the draft's log-odds of declining, in nats; below 0: less",
    "answer.declines": "regular expressions: an answer in which one is found declines",
    "answer.with": "the model that writes draft, critique and revision after a tune",
    "answer.samples_with": "the model that draws the samples, and gives draft and revision their "
    "log-probabilities",
    "decide.belief": "confidence at or above this is kept",
    "decide.risk": "in place of `belief`: at most this share of a round's beliefs is wrong, "
    "going by their confidence",
    "decide.declined": 'confidence at or below this becomes "I don\'t know"; between the two it '
    "is undecided",
}

# how a value of --set is read, and how large a recipe may be
SET = [
    "A recipe has at most 500 kB, 60 levels of keys and lists, one document and no tags. Anchors",
    "and aliases may be used.",
    "",
    "## Changing a value on the command line",
    "",
    "In `--set KEY=VALUE` the KEY has a dot before each part, and the number of a place in a list:",
    "`ask.sources.0.path`.",
    "Spaces around KEY and VALUE do not count. VALUE is read by one rule:",
    "",
    "| VALUE | is |",
    "| --- | --- |",
    "| a number, `true`, `false` or `null`, by itself | that, as in the recipe |",
    "| text that begins with `[`, `{`, `\"` or `'` | YAML or JSON that ends where VALUE ends |",
    '| nothing | refused; write `null` for none, and `""` for an empty text |',
    "| all else | text as typed: `a #1.txt`, `a: b`, `yes`, `12:30`, `*` |",
    "",
    "Text that looks like a number goes in quotes, inside those of the shell: `--set "
    "'name=\"007\"'`. A value that cannot be",
    "taken as it was typed is refused, and the message says how to write it.",
    "",
    "A run has the name of the recipe's file: accents are taken off, other characters than "
    "letters,",
    "digits, `.`, `_` and",
    "`-` become `-`, and a name is cut after 80 characters. Where that changes the name, `run`",
    "says so. A `name` in",
    "the recipe is taken as it is, or refused.",
    "",
]

DETECTORS = [
    "Each detector has a page with its options, formula, paper and limits: see",
    "[detectors.md](detectors.md) for the list. `selfloop plugins` lists them, too.",
    "",
]


def recipe() -> str:
    """Return docs/recipe.md."""
    lines = [
        "# The recipe",
        MADE,
        "A recipe is a YAML file. Every key is checked before a model loads, every mistake is "
        "reported at once, and",
        "`--set key.below=value` on the command line changes any of them.",
        "",
        *SET,
        "## Keys",
        "",
        *_table(_keys(Recipe)),
    ]
    for name, model in {"ask": Ask, "answer": Answer, "decide": Decide}.items():
        lines += [
            f"### `{name}`",
            "",
            inspect.cleandoc(model.__doc__ or ""),
            "",
            *_table(_keys(model, f"{name}.")),
        ]
    lines += [
        "### Components",
        "",
        "Where a key wants a component, give its name, or its name as `kind` with its options "
        "beside it:",
        "",
        "```yaml",
        "detectors:",
        "  - agreement",
        "  - kind: sequence_probability",
        "```",
        "",
    ]
    beside = []
    for model in SPECS:
        meaning = inspect.cleandoc(model.__doc__ or "")
        beside += [(f"`{name}`", kind, default, meaning) for name, kind, default in _own(model)]
    lines += ["Beside its own options, a component may have:", "", *_table(beside)]
    for kind, offers in _built_in().items():
        lines += [f"## {kind.capitalize()}s", ""]
        lines += ["None is built in.", ""] if not offers else []
        if kind == "detector":
            # so that a detector is three files: its module, its test and its page
            lines += DETECTORS
            continue
        for offer in sorted(offers, key=lambda o: o.component.name):
            lines += _component(offer.component)
    lines += [
        "## Capabilities",
        "",
        "The capabilities of backends, and the components that need them:",
        "",
    ]
    lines += [f"* `{name}`: {meaning}" for name, meaning in CAPABILITIES.items()]
    return "\n".join(lines) + "\n"


def _built_in() -> dict[str, list[Provided]]:
    by_kind: dict[str, list[Provided]] = {kind: [] for kind in HOOKS}
    for kind, offer in load():
        if offer.component.build.__module__.startswith(("selfloop.", "selfloop_plugins.")):
            by_kind[kind].append(offer)
    return by_kind


def _keys(model: type[BaseModel], way: str = "") -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        default = "(required)" if field.is_required() else f"`{_default(field.default)}`"
        default = default if name != "name" else ""
        key = field.alias or name
        yield f"`{key}`", _type(field.annotation, field.metadata), default, MEANING[way + key]


def _own(model: type[ComponentSpec]) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        if name != "kind":
            yield (
                field.alias or name,
                _type(field.annotation, field.metadata),
                f"`{describe_value(field.default)}`",
            )


def _type(annotation: Any, metadata: Any) -> str:
    if annotation in PARTS:
        return PARTS[annotation]
    kinds = "|".join(SPECS.values())
    return re.sub(rf"list of ({kinds})\b", r"list of \1s", describe_type(annotation, metadata))


def _default(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], ComponentSpec):
        return f"[{', '.join(_short(spec) for spec in value)}]"
    if isinstance(value, BaseModel):
        return "as below"
    return "{}" if value == {} else describe_value(value)


def _short(spec: ComponentSpec) -> str:
    given = {key: value for key, value in spec.model_dump().items() if key in spec.model_fields_set}
    if len(given) == 1:
        return spec.kind
    return f"{{{', '.join(f'{k}: {v}' for k, v in given.items())}}}"


def _component(component: Any) -> list[str]:
    lines = [f"### `{component.name}`", "", f"{component.doc[0].upper()}{component.doc[1:]}."]
    if component.needs:
        lines += [f"Needs of the backend: {', '.join(f'`{n}`' for n in sorted(component.needs))}."]
    if component.gives:
        lines += [f"Gives: {', '.join(f'`{n}`' for n in sorted(component.gives))}."]
    if component.paper:
        lines += [f"Source: <{component.paper}>."]
    if component.extra:
        lines += [
            f"Needs the extra `{component.extra}`: `pip install 'selfloop[{component.extra}]'`."
        ]
    return [*lines, "", *_paragraphs(component.build), "", *_options(component)]


def _options(component: Any) -> list[str]:
    rows = [
        (f"`{o['name']}`", o["type"], f"`{o['default'][3:]}`" if o["default"] else "(required)")
        for o in describe_options(component.build, component.wraps)
    ]
    return _table(rows, "option", "type", "default") if rows else ["It has no options.", ""]


def _paragraphs(build: Any) -> list[str]:
    """Return the docstring of the class or function, less the exceptions."""
    text = inspect.cleandoc(build.__doc__ or "")
    return [line for line in text.splitlines() if not line.startswith("Raises ")]


def _table(rows: Any, *head: str) -> list[str]:
    head = head or ("key", "type", "default", "meaning")
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for row in rows:
        lines.append(" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row))
    return [*(f"| {line} |" for line in lines), ""]


def cli() -> str:
    """Return docs/cli.md: the help of each command, as it is printed on 80 columns."""
    group = click.Context(selfloop, info_name="selfloop", terminal_width=80, max_content_width=80)
    lines = ["# The command line", MADE]
    more = [
        c.name
        for _, c in load().commands
        if c.callback and c.callback.__module__.startswith("selfloop_plugins.")
    ]
    for name in (*COMMANDS, *filter(None, more)):
        command = selfloop.get_command(group, name)
        assert command is not None
        lines += _help(command, group)
    lines += ["## Exit codes", "", "```text", _exit_codes(), "```"]
    return "\n".join(lines) + "\n"


def detectors() -> Iterator[tuple[str, str]]:
    """Yield the name and text of each page of docs/detectors/.

    The part above the mark is written by hand; the rest comes from the component and from the
    figures in docs/results/detectors.md.
    """
    by_name = {offer.component.name: offer.component for offer in _built_in()["detector"]}
    for path in sorted(DOCS.glob("detectors/*.md")):
        by_hand = path.read_text(encoding="utf-8").partition(BELOW)[0].rstrip()
        if path.stem not in by_name:
            sys.exit(f"docs/detectors/{path.name} is the page of no detector: rename or remove it")
        lines = [by_hand, "", BELOW, *_detector(by_name[path.stem])]
        yield f"detectors/{path.name}", "\n".join(lines).rstrip() + "\n"


def _detector(component: Any) -> list[str]:
    """Return the lines of a detector's page that come from its component."""
    module = component.build.__module__.partition(".")[2].replace(".", "/")
    needs = ", ".join(f"`{need}`" for need in sorted(component.needs))
    facts = [
        ("source", f"<{component.paper}>" if component.paper else "none: it is selfloop's own"),
        ("needs of the backend", needs or "nothing special"),
        ("module", f"[{module}.py](../../plugins/{module}.py)"),
    ]
    lines = ["## At a glance", "", *_table(facts, "", component.name)]
    lines += ["## Formula and edges", "", *LETTERS, "", *_paragraphs(component.build), ""]
    return [*lines, *_options(component), "## Measured", "", *_measured(component.name)]


@dataclass(frozen=True)
class ModelFigures:
    """One table of docs/results/detectors.md; `cells` has each detector's row."""

    model: str
    sets: list[str]
    shares_right: list[str]
    cells: dict[str, list[str]]


def _measured(name: str) -> list[str]:
    """Return the figures of a detector and of its variants, a table for each.

    A row is a set of questions; a model has two columns, so that two models fit on a page.
    """
    by_variant: dict[str, list[ModelFigures]] = {}
    for figures in _figures():
        for variant in figures.cells:
            if re.split("[, ]", variant.strip("*"))[0] == name:
                by_variant.setdefault(variant, []).append(figures)
    if not by_variant:
        return ["[The results](../results/detectors.md) have no figures of it."]
    lines = [*MEASURED, ""]
    for variant, models in by_variant.items():
        label = variant.strip("*")
        if label != name or len(by_variant) > 1:
            lines += [f"{label}:", ""]
        heads = ["questions"]
        columns = []
        for figures in models:
            heads += [f"{figures.model}: right", "AUROC (ECE)"]
            columns += [[*figures.shares_right, ""], figures.cells[variant]]
        rows = zip([*models[0].sets, "s / 1,000"], *columns, strict=True)
        lines += _table(rows, *heads)
    return lines


def _figures() -> Iterator[ModelFigures]:
    """Yield the tables with figures in docs/results/detectors.md, one for each model."""
    figures: ModelFigures | None = None
    for line in (DOCS / "results" / "detectors.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.removesuffix("|"))[1:]]
        if not line.startswith("|") or len(cells) != FIGURE_COLUMNS or cells[0].startswith("---"):
            continue
        first, *rest = (cell.replace("\\|", "|") for cell in cells)
        if MODEL_CELL.fullmatch(first):
            if figures:
                yield figures
            # the head of a model's table: "easy_facts (55.7% right)" and so on
            sets = [cell.split(" ")[0] for cell in rest[:-1]]
            shares_right = [cell.partition("(")[2].removesuffix(" right)") for cell in rest[:-1]]
            figures = ModelFigures(first.strip("*"), sets, shares_right, {})
        elif figures:
            figures.cells[first] = rest
    if figures:
        yield figures


def _help(command: click.Command, parent: click.Context) -> list[str]:
    """Return the help of a command, and of those below it."""
    context = click.Context(
        command, info_name=command.name, parent=parent, terminal_width=80, max_content_width=80
    )
    lines = [f"## `{context.command_path}`", "", "```text", command.get_help(context), "```", ""]
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            lines += _help(subcommand, context)
    return lines


def _exit_codes() -> str:
    import selfloop.errors

    return inspect.cleandoc(selfloop.errors.__doc__ or "")


def main(check: bool) -> int:
    """Write the files; with `check`, return 1 if one of them differs."""
    stale = []
    for name, text in [("recipe.md", recipe()), ("cli.md", cli()), *detectors()]:
        path = DOCS / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    for name in stale:
        sys.stdout.write(f"docs/{name} {'is stale: run `make docs`' if check else 'written'}\n")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
