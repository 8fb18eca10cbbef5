"""The golden record: everything a change that only moves or renames code must leave the same.

    python benchmarks/golden.py write FOLDER        # before the change; outside the repository
    python benchmarks/golden.py compare FOLDER      # after it: exit code 1 for a difference
    python benchmarks/golden.py compare FOLDER --renamed verifier=detector
    python benchmarks/golden.py write FOLDER --no-models     # about a minute

It holds the stored records of every bundled recipe on the scripted backend, 40 completions with
log-probabilities of each model and engine, the help of every command, the schema of the recipe with
the options of all components, and the data of one report. Everything goes through the command line,
so that the script survives the moves it is there for.
"""

import argparse
import difflib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
SELFLOOP = str(Path(sys.executable).with_name("selfloop"))
SHORT = ("ask.questions=6", "rounds=2", "observers=[]", "tuner=null", "backend=scripted")
MODELS = {
    "smollm2-llama_cpp": "{kind: llama_cpp, model: smollm2-135m-instruct}",
    "gemma-llama_cpp": "{kind: llama_cpp, model: gemma-3-270m}",
    "smollm2-hf": "{kind: hf, model: smollm2-135m-instruct}",
}
QUESTIONS = (
    "What is the capital of France?",
    "Who wrote Hamlet?",
    "What is the largest planet?",
    "Which metal is liquid at room temperature?",
    "In which year did the First World War begin?",
    "What is the chemical symbol of gold?",
    "Who painted the Mona Lisa?",
    "What is the longest river in Africa?",
    "How many legs does a spider have?",
    "Which country has the city of Kyoto?",
)
SAMPLES = 3  # with the greedy answer four completions a question: 40 of each model
# Each table in an order that does not depend on when or how a row came about.
TABLES = {
    "completions": "SELECT key, sample, step, text, data FROM completions ORDER BY key, sample",
    "attempts": "SELECT round, position, question, source, answer, decision, confidence, reason, "
    "data FROM attempts "
    "ORDER BY round, position",
    "verdicts": "SELECT attempts.round, attempts.position, detector, candidate, "
    "verdicts.confidence, verdicts.reason "
    "FROM verdicts JOIN attempts ON attempts.id = verdicts.attempt ORDER BY 1, 2, 3, 4",
    "failures": "SELECT round, step, component, type, message FROM failures ORDER BY 1, 2, 3, 4, 5",
}
TIMES = re.compile(r'("(?:seconds|started|ended|time|elapsed|rate|versions?)": )[^,}\]]+')


def main() -> None:
    """Write the record, or compare it with an earlier one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("write", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-models", action="store_true")
    parser.add_argument(
        "--renamed",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="a word renamed on purpose",
    )
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        record = dict(parts(Path(scratch), models=not options.no_models))
    if options.action == "write":
        options.folder.mkdir(parents=True, exist_ok=True)
        for name, text in record.items():
            (options.folder / name).write_text(text, encoding="utf-8")
        print(f"{len(record)} files in {options.folder}")
        return
    earlier = {path.name: path.read_text("utf-8") for path in options.folder.iterdir()}
    for renaming in options.renamed:
        earlier = {name: renamed(text, *renaming.split("=")) for name, text in earlier.items()}
    sys.exit(differences(earlier, record, models=not options.no_models))


def renamed(text: str, old: str, new: str) -> str:
    """Return a text with a word replaced, also where it is part of a name: `detector_pmi`."""
    return re.sub(rf"(?<![a-zA-Z]){re.escape(old)}(?![a-zA-Z])", new, text)


def differences(earlier: dict[str, str], record: dict[str, str], *, models: bool) -> int:
    """Print how the record differs from the earlier one; return 1 if it does, else 0."""
    if not models:
        earlier = {name: text for name, text in earlier.items() if not name.startswith("model-")}
    differing = [name for name in sorted(earlier | record) if earlier.get(name) != record.get(name)]
    for name in differing:
        before = earlier.get(name, "").splitlines()
        after = record.get(name, "").splitlines()
        changed = list(
            difflib.unified_diff(before, after, f"{name} before", f"{name} after", n=0, lineterm="")
        )
        print("\n".join(line[:300] for line in changed[:40]))
    print(f"{len(record) - len(differing)} of {len(record)} files are the same")
    return bool(differing)


def parts(scratch: Path, *, models: bool) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file of the record."""
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        run = scratch / "runs" / recipe.stem
        settings = [part for change in SHORT for part in ("--set", change)]
        called(scratch, "run", str(recipe), *settings)
        yield f"scripted-{recipe.stem}.txt", stored(run)
    called(
        scratch, "report", str(scratch / "runs" / "quickstart"), "--out", str(scratch / "report")
    )
    yield "report.txt", report_data(scratch / "report")
    yield from helps(scratch, ())
    yield "options.md", (ROOT / "docs" / "recipe.md").read_text("utf-8")
    yield "schema.json", schema()
    if models:
        for name, backend in MODELS.items():
            yield f"model-{name}.txt", answered(scratch, name, backend)


def called(folder: Path, *arguments: str) -> str:
    """Return the output of a command of selfloop that has to succeed."""
    environment = os.environ | {"SELFLOOP_ACCEPT_LICENSE": "1", "COLUMNS": "120", "NO_COLOR": "1"}
    done = subprocess.run(
        [SELFLOOP, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(
            f"selfloop {' '.join(arguments)} ended with "
            f"{done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def stored(run: Path) -> str:
    """Return the records of a run as text, without times."""
    lines: list[str] = []
    with closing(sqlite3.connect(run / "run.sqlite")) as database:
        for table, query in TABLES.items():
            for row in database.execute(query):
                text = json.dumps(row, ensure_ascii=False)
                lines.append(f"{table}: " + TIMES.sub(r"\g<1>...", text))
    return "\n".join(lines) + "\n"


def report_data(page: Path) -> str:
    """Return the data embedded in a report's page."""
    text = (page / "report.html" if page.is_dir() else page).read_text("utf-8")
    scripts = re.findall(
        r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL
    )
    if not scripts:
        sys.exit(f"{page} holds no data.")
    return "\n".join(
        json.dumps(json.loads(script), indent=1, ensure_ascii=False) for script in scripts
    )


def helps(folder: Path, command: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the help of a command and of the commands below it."""
    text = called(folder, *command, "--help")
    yield f"help-{'-'.join(command) or 'selfloop'}.txt", text
    _, heading, listed = text.partition("\nCommands:\n")
    names = re.findall(r"^  (\w[\w-]*)", listed, re.MULTILINE) if heading else []
    for name in names:
        yield from helps(folder, (*command, name))


def schema() -> str:
    """Return the JSON schema of a recipe."""
    from selfloop.config.recipe import Recipe

    described: dict[str, Any] = Recipe.model_json_schema()
    return json.dumps(described, indent=1, sort_keys=True)


def answered(scratch: Path, name: str, backend: str) -> str:
    """Return the records of a run in which a model answers the questions."""
    folder = scratch / name
    folder.mkdir()
    (folder / "questions.txt").write_text("\n".join(QUESTIONS), encoding="utf-8")
    recipe = (
        f"rounds: 1\nbackend: {backend}\n"
        f"ask: {{questions: {len(QUESTIONS)}, sources: [{{kind: file, path: questions.txt}}]}}\n"
        f"answer: {{samples: {SAMPLES}}}\ndetectors: [agreement, "
        "sequence_probability]\nobservers: []\n"
    )
    (folder / "golden.yaml").write_text(recipe, encoding="utf-8")
    called(folder, "run", "golden.yaml")
    return stored(folder / "runs" / "golden")


if __name__ == "__main__":
    main()
