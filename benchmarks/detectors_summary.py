"""Condense what `detectors.py` printed: one table for each model, detectors in rows, sets in
columns.

    python benchmarks/detectors_summary.py benchmarks/results/detectors.txt

AUROC with ECE in brackets, then the seconds for 1,000 questions, the median over the sets. The best
AUROC of a single detector in a set is marked with a star (rows with † judged only some of the
questions, and do not count), and a combination that has more than it is in bold.
"""

import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

PART = " †"  # judged only some of the questions
HEAD = re.compile(
    r"\*\*(?P<model>[^*]+)\*\* \([^)]*\), \*\*(?P<set>[^*]+)\*\*: (?P<n>\d+) questions, accuracy "
    r"(?P<acc>[\d.]+)"
)


def main() -> None:
    """Read and print."""
    cells: dict[str, dict[str, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(dict))
    accuracy: dict[tuple[str, str], str] = {}
    model = label = ""
    for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
        if found := HEAD.match(line):
            model, label = found["model"], found["set"]
            accuracy[model, label] = found["acc"]
        elif line.startswith("| ") and "AUROC" not in line and model:
            name, *row = [cell.strip() for cell in line.strip("|").split("|")]
            cells[model][re.sub(r" \(first.*", PART, name)][label] = row
    for model, rows in cells.items():
        sets = [label for known, label in accuracy if known == model]
        table(model, rows, sets, accuracy)


def table(
    model: str,
    rows: dict[str, dict[str, list[str]]],
    sets: list[str],
    accuracy: dict[tuple[str, str], str],
) -> None:
    """Print one model's table."""
    print(
        f"\n| **{model}** | "
        + " | ".join(f"{label} ({float(accuracy[model, label]):.1%} right)" for label in sets),
        end="",
    )
    print(" | s / 1,000\n|---" + "|---" * (len(sets) + 1) + "|")
    best = {
        s: max(number(row[s][0]) for name, row in rows.items() if s in row and eligible(name))
        for s in sets
    }
    for name, row in rows.items():
        shown = [cell(row.get(s), best[s], combined="combined" in name) for s in sets]
        seconds = statistics.median(float(each[-1]) for each in row.values())
        print(f"| {name} | {' | '.join(shown)} | {seconds:.1f} |")


def eligible(name: str) -> bool:
    """Return whether a row is a single detector's that judged all questions."""
    return "combined" not in name and PART not in name


def number(text: str) -> float:
    """Return the value of a cell; nothing is below everything."""
    return float(text.split()[0]) if text[:1].isdigit() else -1.0


def cell(row: list[str] | None, best: float, *, combined: bool) -> str:
    """Return AUROC and, in brackets, ECE."""
    if row is None or number(row[0]) < 0:
        return "-"
    value = row[0].split()[0]
    if combined and number(row[0]) > best:
        value = f"**{value}**"
    elif not combined and number(row[0]) == best:
        value += "\\*"
    return f"{value} ({number(row[2]):.3f})"


if __name__ == "__main__":
    main()
