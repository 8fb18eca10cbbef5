"""How the code base reads, in figures, for any folder of Python or Markdown.

    python benchmarks/style.py selfloop plugins docs
    python benchmarks/style.py --messages              # also help and messages of selfloop
    python benchmarks/style.py FOLDER_OF_ANOTHER_PROJECT ...

Code lines are lines that hold a token which is neither a comment nor part of a docstring. A nested
comprehension has another one inside it, or more than one `for`. A stop-gap name is one of
`STOP_GAPS`, bound as a variable or an argument. A *what* clause is *what* followed by an auxiliary,
an article or a pronoun.
"""

import argparse
import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
STOP_GAPS = {"found", "one", "own", "told", "said", "given", "held", "made", "shown", "got"}
BLANK = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
MAX_COLUMNS = 100
MAX_SENTENCE = 25  # words
README = Path("README.md")
WHAT = re.compile(
    r"\bwhat (?:is|was|are|were|the|a|an|it|they|he|she|you|has|had|holds?)\b", re.IGNORECASE
)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Print the figures of each folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--messages", action="store_true", help="the prose of help and messages")
    options = parser.parse_args()
    for folder in options.folders:
        print(f"\n{folder}")
        if any(folder.rglob("*.py")):
            print_figures(code_figures(folder))
        if any(folder.rglob("*.md")):
            texts = [path.read_text("utf-8") for path in sorted(folder.rglob("*.md"))]
            print_figures(prose_figures("\n".join(texts)))
    if options.messages:
        print("\nhelp and messages")
        print_figures(prose_figures("\n".join(messages())))
    if README.exists():
        print(f"\nsentences of {README} over {MAX_SENTENCE} words")
        for sentence in long_sentences(README.read_text("utf-8")):
            print(f"  {len(sentence.split())} words: {sentence}")


def print_figures(figures: dict[str, float | str]) -> None:
    """Print one figure a line."""
    for name, value in figures.items():
        print(f"  {name:<48} {value}")


def code_figures(folder: Path) -> dict[str, float | str]:
    """Return the figures of all Python files below a folder."""
    counts = Counter[str]()
    lengths: list[int] = []
    names = Counter[str]()
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text("utf-8")
        tree = ast.parse(source)
        count_lines(source, tree, counts)
        for node in ast.walk(tree):
            count_node(node, counts)
            if isinstance(node, FUNCTIONS):
                lengths.append(function_length(node))
                names[node.name] += not node.name.startswith("__")
    lengths.sort()
    thousands = max(counts["code"], 1) / 1000
    wide_share = 100 * counts["wide"] / max(counts["lines"], 1)
    median = lengths[len(lengths) // 2] if lengths else 0
    ninth_decile = lengths[int(0.9 * len(lengths))] if lengths else 0
    return {
        "lines of code": counts["code"],
        "length of functions, median / 90 %": f"{median} / {ninth_decile}",
        "nested comprehensions per 1,000 lines": round(counts["nested"] / thousands, 1),
        "walrus per 1,000 lines": round(counts["walrus"] / thousands, 1),
        "comments per 1,000 lines": round(counts["comments"] / thousands),
        f"lines over {MAX_COLUMNS} columns, %": round(wide_share, 1),
        "stop-gap names bound": counts["stop-gaps"],
        "function names used three times or more": sum(times >= 3 for times in names.values()),
    }


def count_lines(source: str, tree: ast.Module, counts: Counter[str]) -> None:
    """Count lines of code, comments and wide lines of a file."""
    code_lines = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        counts["comments"] += token.type == tokenize.COMMENT
        if token.type not in BLANK:
            code_lines.update(range(token.start[0], token.end[0] + 1))
    lines = source.splitlines()
    counts["code"] += len(code_lines - docstring_lines(tree))
    counts["lines"] += len(lines)
    counts["wide"] += sum(len(line) > MAX_COLUMNS for line in lines)


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of all lines that belong to docstrings."""
    numbers = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            numbers.update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return numbers


def count_node(node: ast.AST, counts: Counter[str]) -> None:
    """Count a node if it is a nested comprehension, a walrus, or binds a stop-gap name."""
    if isinstance(node, COMPREHENSIONS):
        inner = [child for child in ast.walk(node) if isinstance(child, COMPREHENSIONS)]
        counts["nested"] += len(inner) > 1 or len(node.generators) > 1
    elif isinstance(node, ast.NamedExpr):
        counts["walrus"] += 1
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        counts["stop-gaps"] += node.id in STOP_GAPS
    elif isinstance(node, ast.arg):
        counts["stop-gaps"] += node.arg in STOP_GAPS


def function_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function without its docstring."""
    length = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return length
    docstring = function.body[0]
    return length - ((docstring.end_lineno or 0) - docstring.lineno + 1)


def prose_figures(text: str) -> dict[str, float | str]:
    """Return the number of words, and of *what* clauses per 1,000 of them."""
    words = len(re.findall(r"\w+", text))
    clauses = len(WHAT.findall(text))
    return {"words": words, "'what ...' per 1,000 words": round(1000 * clauses / max(words, 1), 2)}


def messages() -> Iterator[str]:
    """Yield the help of every command, and the texts in the source."""
    import click
    from selfloop_plugins import __path__ as plugins

    import selfloop
    from selfloop.cli import selfloop as group

    yield from helps(click.Context(group, info_name="selfloop"), group)
    for folder in (Path(selfloop.__file__).parent, Path(plugins[0])):
        for path in sorted(folder.rglob("*.py")):
            yield from texts_in(ast.parse(path.read_text("utf-8")))


def texts_in(tree: ast.Module) -> Iterator[str]:
    """Yield the texts of three words or more in a module, without its docstrings."""
    docstrings = docstring_lines(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_message = len(node.value.split()) >= 3 and node.lineno not in docstrings
            if is_message:
                yield node.value


def helps(context: object, command: object) -> Iterator[str]:
    """Yield the help of a command and of those below it."""
    import click

    assert isinstance(context, click.Context)
    assert isinstance(command, click.Command)
    yield command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from helps(click.Context(child, parent=context, info_name=name), child)


def long_sentences(markdown: str) -> list[str]:
    """Return the sentences of a document that are too long, without code and tables."""
    prose = FENCED.sub("", markdown)
    lines = [line for line in prose.split("\n") if not line.startswith(("|", "#", "!", "    "))]
    text = re.sub(r"^\* ", "\n\n", "\n".join(lines), flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    sentences: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        sentences += re.split(r"(?<=[.!?:])\**\s+", " ".join(paragraph.split()))
    return [sentence for sentence in sentences if len(sentence.split()) > MAX_SENTENCE]


if __name__ == "__main__":
    main()
