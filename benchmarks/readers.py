"""The one reader of question data on every format, on data sets' own files, and on files that are
broken.

    # a line for each format, the own files of data sets, and broken files
    python benchmarks/readers.py
    python benchmarks/readers.py --all      # with a line for each broken file too

The same made-up questions are written in every format: the questions and gold answers that come
back must be the same. A broken file must be read with an account of all its rows, or be refused
with one message that names it; anything else (a traceback, a question of the file that is neither
asked nor accounted for) counts as a fault, and ends this with 1.
"""

import argparse
import csv
import gzip
import io
import json
import os
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import parquet

from selfloop.data import Table, read
from selfloop.errors import MissingExtraError, RecipeError

ORIGINALS = Path(__file__).parent.parent / "tests" / "data" / "originals"

Pairs = list[tuple[str, tuple[str, ...]]]
ROWS: Pairs = [
    ("What is the capital of France?", ("Paris", "Paris, France")),
    ("Which vitamin prevents scurvy?", ("C", "vitamin C")),
    ('Who sang "Hello, Dolly"; and where?', ("Louis Armstrong", "Satchmo's band")),
    ("Où est née l’impératrice?", ("Ajaccio",)),
    ("首都はどこですか", ("東京", "Tōkyō")),
    ("How many legs has a spider?", ("8", "eight")),
    ("Which blood group takes all?", ("AB+",)),
    ("Which sign adds two numbers?", ("+", "plus")),
]
OWN: Pairs = [  # what is in each of tests/data/originals
    ("Which river flows through Zorva?", ("Balm", "Balm, the Lesser")),
    ("Which blood group is the universal donor of plasma?", ("AB", "group AB")),
    ('Who wrote "The Grey Heron"?', ("Mara O'Dell", "M. O'Dell")),
]


def pairs(table: Table) -> Pairs:
    """Return the questions of a table with their gold answers."""
    return [(question.text, question.gold) for question in table.questions]


# --- the same rows in every format


def csv_text(
    rows: Pairs,
    cell: Callable[[Sequence[str]], str] = lambda gold: json.dumps(list(gold)),
    *,
    delimiter: str = ",",
    quoting: int = csv.QUOTE_MINIMAL,
    end: str = "\n",
) -> str:
    """Return rows as CSV; `cell` writes the gold answers of one."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerow(["question", "answers"])
    writer.writerows([question, cell(gold)] for question, gold in rows)
    return out.getvalue()


def jsonl_text(rows: Pairs, end: str = "\n") -> str:
    """Return rows as JSONL."""
    lines = [json.dumps({"question": question, "answers": list(gold)}) for question, gold in rows]
    return "".join(line + end for line in lines)


def arrow_table(rows: Pairs) -> pa.Table:
    """Return rows as a table of Arrow."""
    questions, gold = [question for question, _ in rows], [list(gold) for _, gold in rows]
    return pa.table({"question": questions, "answers": gold})


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet."""
    parquet.write_table(table, out := io.BytesIO())
    return out.getvalue()


def stream_bytes(table: pa.Table) -> bytes:
    """Return a table as a stream of Arrow, as the library `datasets` saves it."""
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def file_bytes(table: pa.Table) -> bytes:
    """Return a table as an Arrow file."""
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def save_to_disk(folder: Path, table: pa.Table) -> Path:
    """Write a table as `datasets.Dataset.save_to_disk` does."""
    folder.mkdir(parents=True)
    name = "data-00000-of-00001.arrow"
    (folder / name).write_bytes(stream_bytes(table))
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name}], "_split": "test"})
    )
    (folder / "dataset_info.json").write_text("{}")
    return folder


def numpy_cell(gold: Sequence[str]) -> str:
    """Return texts as pandas writes an array into CSV."""
    return str(np.array(list(gold), dtype=object))


def squad_cell(gold: Sequence[str]) -> str:
    """Return texts as pandas writes the answers of SQuAD into CSV."""
    return str(
        {"text": np.array(list(gold), dtype=object), "answer_start": np.array([1] * len(gold))}
    )


def formats(rows: Pairs) -> dict[str, bytes]:
    """Return the rows in every format that is one file, by the file's name."""
    table = arrow_table(rows)
    objects = [{"question": question, "answers": list(gold)} for question, gold in rows]
    squad = [
        {"question": q, "answers": {"text": list(g), "answer_start": [1] * len(g)}} for q, g in rows
    ]
    columns = {
        "question": {str(i): question for i, (question, _) in enumerate(rows)},
        "answers": {str(i): list(gold) for i, (_, gold) in enumerate(rows)},
    }
    comma, tab = csv_text(rows), csv_text(rows, delimiter="\t")
    made = {
        "rows.jsonl": jsonl_text(rows),
        "rows.JSONL": jsonl_text(rows, "\r\n"),
        "cr.ndjson": jsonl_text(rows, "\r"),
        "array.json": json.dumps(objects, indent=2),
        "data.json": json.dumps({"version": 1, "data": objects}),
        "columns.json": json.dumps(columns),
        "lists.json": json.dumps(
            {"question": [q for q, _ in rows], "answers": [list(g) for _, g in rows]}
        ),
        "squad.jsonl": "".join(json.dumps(row) + "\n" for row in squad),
        "comma.csv": comma,
        "quoted.CSV": csv_text(rows, quoting=csv.QUOTE_ALL, end="\r\n"),
        "cr.csv": csv_text(rows, end="\r"),
        "semicolon.csv": csv_text(rows, delimiter=";"),
        "tab.tsv": tab,
        "tab.csv": tab,
        "unquoted.tsv": "question\tanswers\n"
        + "".join(f"{q}\t{json.dumps(list(g))}\n" for q, g in rows),
        "python.csv": csv_text(rows, lambda gold: repr(list(gold))),
        "numpy.csv": csv_text(rows, numpy_cell),
        "squad.csv": csv_text(rows, squad_cell),
        "bars.csv": csv_text(rows, "|".join),
        "csv.txt": comma,
        "jsonl.txt": jsonl_text(rows),
        "unnamed": comma,
    }
    packed = {
        f"{name}.gz": gzip.compress(made[name].encode())
        for name in ("rows.jsonl", "array.json", "comma.csv")
    }
    encoded = {
        "bom.csv": b"\xef\xbb\xbf" + comma.encode(),
        "utf16.csv": comma.encode("utf-16"),
        "utf16.jsonl": jsonl_text(rows).encode("utf-16"),
        "rows.parquet": parquet_bytes(table),
        "rows.PARQUET.gz": gzip.compress(parquet_bytes(table)),
        "squad.parquet": parquet_bytes(pa.Table.from_pylist(squad)),
        "file.arrow": file_bytes(table),
        "stream.arrow": stream_bytes(table),
    }
    return {name: text.encode() for name, text in made.items()} | packed | encoded


def format_paths(folder: Path, rows: Pairs) -> Iterator[Path]:
    """Write the rows in every format, and yield each path."""
    for name, content in formats(rows).items():
        (folder / name).write_bytes(content)
        yield folder / name
    yield save_to_disk(folder / "saved", arrow_table(rows))
    save_to_disk(folder / "splits" / "test", arrow_table(rows))
    (folder / "splits" / "dataset_dict.json").write_text('{"splits": ["test"]}')
    yield folder / "splits"


# --- broken files

MARK = re.compile(r"number of thing (\d+)")  # in each question of the files that are broken here
BROKEN_ROWS: Pairs = [
    (f"What is the number of thing {i}?", (f"thing, {i}", f"{i}")) for i in range(100, 112)
]


@dataclass(frozen=True)
class Outcome:
    """What became of a broken file: read, refused, or a fault, and in which words."""

    kind: str
    text: str


def bases() -> dict[str, bytes]:
    """Return sound files to be broken, by suffix."""
    return {
        ".jsonl": jsonl_text(BROKEN_ROWS).encode(),
        ".json": json.dumps(
            [{"question": q, "answers": list(g)} for q, g in BROKEN_ROWS], indent=1
        ).encode(),
        ".csv": csv_text(BROKEN_ROWS).encode(),
        ".tsv": csv_text(BROKEN_ROWS, delimiter="\t").encode(),
        ".txt": "".join(f"{i}. {q}\n" for i, (q, _) in enumerate(BROKEN_ROWS, 1)).encode(),
        ".parquet": parquet_bytes(arrow_table(BROKEN_ROWS)),
        ".arrow": file_bytes(arrow_table(BROKEN_ROWS)),
        ".jsonl.gz": gzip.compress(jsonl_text(BROKEN_ROWS).encode()),
    }


def damages(data: bytes) -> dict[str, bytes]:
    """Return a file broken in every way that fits any format."""
    half = len(data) // 2
    lines = data.split(b"\n")
    deep = b"[" * 100_000
    return {
        "cut-1": data[:1],
        "cut-25": data[: len(data) // 4],
        "cut-50": data[:half],
        "cut-90": data[: len(data) * 9 // 10],
        "cut-last": data[:-1],
        "byte-ff": data[:half] + b"\xff" + data[half:],
        "null": data[:half] + b"\0" + data[half:],
        "latin": data.replace(b"number", "numéro".encode("latin-1") + b" number", 1),
        "utf16-no-mark": data.decode("latin-1").encode("utf-16-le"),
        "utf16-odd": b"\xff\xfe" + data,
        "deep": b"\n".join([*lines[:2], deep, *lines[2:]]),
        "stray-quote": b"\n".join(
            [*lines[:2], b'"' + lines[2] if len(lines) > 2 else b'"', *lines[3:]]
        ),
        "two-stray-quotes": b"\n".join(
            b'"' + line if i in (2, 5) else line for i, line in enumerate(lines)
        ),
        "odd-row": b"\n".join([*lines[:3], b"42", *lines[3:]]),
        "only-commas": b"\n".join([*lines[:3], b",,,", *lines[3:]]),
        "twice": data + data,
        "backwards": data[::-1],
    }


def broken_contents() -> dict[str, bytes]:
    """Return the contents of files that are broken, by name."""
    made = {
        f"{damage}{suffix}": content
        for suffix, data in bases().items()
        for damage, content in damages(data).items()
    }
    source = random.Random(0)
    made |= {f"random-{i}{suffix}": source.randbytes(500) for i, suffix in enumerate(bases())}
    made |= {f"empty{suffix}": b"" for suffix in bases()}
    header, row = "question,answers\n", "What is the number of thing 100?"
    texts = {
        "header-only.csv": header,
        "header-twice.csv": f"question,answers,answers\n{row},a,b\n",
        "header-again.csv": f"{header}{row},a\n{header}",
        "no-header.csv": f"{row},a\nWhat is the number of thing 101?,b\n",
        "no-name.csv": f",question,answers\n0,{row},a\n",
        "long-row.csv": f"{header}{row},a,b\n",
        "short-row.csv": f"{header}{row}\nWhat is the number of thing 101?,b\n",
        "long-cell.csv": f"{header}{row},{'x' * 200_000}\n",
        "quote-in-text.csv": f'{header}The "number of thing 100" is?,"a""b"\n',
        "quote-open.csv": f'{header}"{row},a\nWhat is the number of thing 101?,b\n',
        "blank-lines.csv": f"\n\n{header}\n\n{row},a\n\n",
        "white.jsonl": " \n\t\n",
        "scalar.json": "42",
        "string.json": '"What is the number of thing 100?"',
        "null.json": "null",
        "no-rows.json": '{"version": 1}',
        "two-lists.json": '{"a": [{"question": "x"}], "b": [{"question": "y"}]}',
        "no-columns.jsonl": "{}\n{}\n",
        "key-twice.jsonl": '{"question": "number of thing 100", '
        '"question": "number of thing 101", "answers": ["a"]}\n',
        "no-question.jsonl": '{"answers": ["a"]}\n{"question": null, "answers": ["b"]}\n',
        "question-list.jsonl": '{"question": ["number of thing 100"], "answers": ["b"], "id": 3}\n'
        '{"id": 4}\n',
        "gold-mapping.jsonl": '{"question": "number of thing 100", "answers": {"who": "x"}}\n',
        "gold-null.jsonl": '{"question": "number of thing 100", "answers": null}\n',
        "gold-cut.csv": f"{header}{row},\"['a', 'b\"\n",
        "pattern.jsonl": '{"question": "number of thing 100", "answer_regex": "("}\n',
        "huge-number.jsonl": f'{{"question": "number of thing 100", "answers": [{"9" * 5000}]}}\n',
        "commas.json": '[{"question": "number of thing 100",}]',
        "uneven.json": '{"question": ["number of thing 100", "b"], "answers": [["x"]]}',
        "page.html": "<!DOCTYPE html><html><body>Not found</body></html>",
        "page.csv": "<!DOCTYPE html><html><body>Not found</body></html>",
        "recipe.yaml": "questions: [number of thing 100]\n",
        "table.md": "| question | answers |\n|---|---|\n| number of thing 100 | a |\n",
        "squad.json": '{"data": [{"paragraphs": [{"qas": [3, {"id": 1}]}]}, {"paragraphs": 3}, 4]}',
        "trivia.json": '{"Data": [{"Question": "number of thing 100"}, 4]}',
        "lfs.jsonl": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    }
    packed = gzip.compress(jsonl_text(BROKEN_ROWS).encode())
    foreign = {
        "crc.jsonl.gz": packed[:-8] + b"\0\0\0\0" + packed[-4:],
        "twice.jsonl.gz": gzip.compress(packed),
        "not-packed.jsonl.gz": jsonl_text(BROKEN_ROWS).encode(),
        "no-rows.parquet": parquet_bytes(arrow_table([])),
        "sheet.xlsx": b"PK\x03\x04" + bytes(50),
        "data.db": b"SQLite format 3\0" + bytes(80),
        "data.pkl": b"\x80\x04\x95\x10\0\0\0\0\0\0\0]\x94.",
        "model.gguf": b"GGUF" + bytes(60),
        "data.jsonl.xz": b"\xfd7zXZ\0" + bytes(20),
        "data.jsonl.zst": b"\x28\xb5\x2f\xfd" + bytes(20),
    }
    return made | {name: text.encode() for name, text in texts.items()} | foreign


def broken_paths(folder: Path) -> Iterator[Path]:
    """Make the broken files, and the things that are no files, and yield the path of each."""
    for name, content in broken_contents().items():
        (folder / name).write_bytes(content)
        yield folder / name
    (folder / "folder.jsonl").mkdir()
    (folder / "nowhere.jsonl").symlink_to(folder / "no.jsonl")
    (folder / "loop.jsonl").symlink_to(folder / "loop.jsonl")
    (folder / "long").mkdir()
    yield from (
        folder / name
        for name in ("folder.jsonl", "nowhere.jsonl", "loop.jsonl", "none.jsonl", "x" * 300)
    )
    yield Path("null\0byte.jsonl")
    yield Path(os.devnull)
    table = arrow_table(BROKEN_ROWS)
    for damage in ("state.json", "data-00000-of-00001.arrow"):
        saved = save_to_disk(folder / f"no-{damage}", table)
        (saved / damage).unlink()
        yield saved
        saved = save_to_disk(folder / f"cut-{damage}", table)
        (saved / damage).write_bytes((saved / damage).read_bytes()[:40])
        yield saved
    saved = save_to_disk(folder / "elsewhere", table)
    (saved / "state.json").write_text('{"_data_files": [{"filename": "../rows.jsonl"}]}')
    yield saved
    splits = folder / "splits"
    for split in ("train", "test"):
        save_to_disk(splits / split, table)
    (splits / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    yield splits


def outcome(path: Path, content: bytes) -> Outcome:
    """Return what becomes of a broken file, for `run` and for `eval` alike: the worse of both."""
    outcomes = [_outcome(path, content, use) for use in ("ask", "eval")]
    return next((one for one in outcomes if one.kind == "FAULT"), outcomes[0])


def _outcome(path: Path, content: bytes, use: str) -> Outcome:
    try:
        table = read(path, use)  # type: ignore[arg-type]
    except (RecipeError, MissingExtraError) as error:
        text = str(error)
        fits = str(path) in text and len(text) < 4000
        return Outcome("refused" if fits else "FAULT", text)
    except BaseException as error:  # noqa: BLE001  whatever comes is what is looked for
        return Outcome("FAULT", f"{type(error).__name__}: {error}")
    lost = sum(one.count for one in table.left_out) + len(table.merged)
    asked = {mark for question in table.questions for mark in MARK.findall(question.text)}
    written = set(MARK.findall(content.decode("utf-8", "ignore")))
    accounted = len(table.questions) + lost
    if table.rows != accounted or len(written - asked) > lost or len(written) > accounted:
        return Outcome(
            "FAULT", f"of {len(written)} questions {len(asked)} are asked, {lost} accounted for"
        )
    return Outcome("read", table.summary())


# --- the report


def main() -> None:
    """Print what comes out of every file; end with 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="a line for each broken file")
    shown = parser.parse_args().all
    faults = 0
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        print(f"the same {len(ROWS)} questions in every format")
        for path in format_paths(folder, ROWS):
            faults += _compared(path, ROWS)
        print(f"\nthe same {len(OWN)} questions in the own files of data sets")
        for path in sorted(ORIGINALS.iterdir()):
            one_each = [(question, gold[:1]) for question, gold in OWN]
            faults += _compared(path, one_each if path.name.startswith("simple_qa") else OWN)
        print("\nbroken files")
        (folder / "broken").mkdir()
        kinds = Counter[str]()
        contents = broken_contents()
        for path in broken_paths(folder / "broken"):
            result = outcome(path, contents.get(path.name, b""))
            kinds[result.kind] += 1
            if shown or result.kind == "FAULT":
                print(f"  {result.kind:8} {path.name[:40]:40} {result.text.splitlines()[0][-150:]}")
        print(
            f"  {kinds.total()} files: {kinds['read']} read, {kinds['refused']} refused, "
            f"{kinds['FAULT']} faults"
        )
    sys.exit(1 if faults + kinds["FAULT"] else 0)


def _compared(path: Path, expected: Pairs) -> int:
    try:
        table = read(path, "eval")
    except (RecipeError, MissingExtraError) as error:
        print(f"  FAULT    {path.name:36} {error}")
        return 1
    same = pairs(table) == expected
    lost = ", ".join(f"{one.count} {one.reason}" for one in table.left_out)
    print(
        f"  {'same' if same else 'OTHER':8} {path.name:36} "
        f"{table.form}{f'; left out: {lost}' if lost else ''}"
    )
    return 0 if same else 1


if __name__ == "__main__":
    main()
