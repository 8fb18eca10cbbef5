"""Plugins cannot spoil results: each row of the table of faults, and other inputs like them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from textwrap import indent
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from conftest import Query, Selfloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfloop import events, records
from selfloop.errors import (
    NothingAnsweredError,
    NothingAskedError,
    StepFailedError,
    TunerFailedError,
)
from selfloop.guard import Failed, capture_each, impossible, match_results
from selfloop.history import History
from selfloop.records import AdapterProof, Completion, Failure, Question, Score, Verdict
from selfloop.registry.isolation import attributed_output
from selfloop.registry.manager import load

pytestmark = pytest.mark.slow

Write = Callable[[dict[str, str]], Path]
Install = Callable[..., None]

HEAD = (
    "import os, signal, sys\nfrom selfloop import *\nfrom selfloop.records import *\n"
    "from selfloop.testing import ScriptedBackend\n"
)
RECIPE = """\
rounds: 1
plugins: [bad.py]
backend: scripted
ask: {questions: 4, sources: [blank_slate]}
answer: {samples: 4}
detectors: [agreement, bad]
observers: [jsonl]
"""
USE = {
    "detector": RECIPE,
    "source": RECIPE.replace("[blank_slate]", "[bad, blank_slate]").replace(
        ", bad]\nobs", "]\nobs"
    ),
    "scorer": RECIPE.replace("[blank_slate]", "[blank_slate], scorers: [bad]").replace(
        ", bad]\nobs", "]\nobs"
    ),
    "critic": RECIPE.replace(", bad]\nobs", "]\ncritique: bad\nobs"),
    "few_shot": RECIPE.replace(", bad]\nobs", "]\nfew_shot: bad\nobs"),
    "tuner": RECIPE.replace(", bad]\nobs", "]\ntuner: bad\nobs"),
    "observer": RECIPE.replace(", bad]\nobs", "]\nobs").replace("[jsonl]", "[jsonl, bad]"),
    "backend": RECIPE.replace(", bad]\nobs", "]\nobs").replace("backend: scripted", "backend: bad"),
}
METHOD = {
    "detector": "verify(self, items, told)",
    "source": "ask(self, told)",
    "scorer": "score(self, items, told)",
    "critic": "critique(self, items, told)",
    "few_shot": "build_prompts(self, items, told)",
    "tuner": "tune(self, told)",
    "observer": "on_event(self, event)",
    "backend": "generate(self, items)",
}
SOUND = "return [Verdict('bad', 0.5) for _ in items]"


def plugin(body: str, kind: str = "detector", top: str = "", name: str = "bad") -> str:
    """Return a plugin with one component of a kind whose method has this body."""
    hook = {"source": "question_sources", "few_shot": "few_shot"}.get(kind, f"{kind}s")
    base = "(ScriptedBackend)" if kind == "backend" else ""
    gives = ", gives=frozenset({'logprobs', 'chat', 'adapters'})" if kind == "backend" else ""
    rest = "    def close(self): pass\n" if kind == "observer" else ""
    rest += "    revise = 'revise'\n" if kind == "critic" else ""
    return (
        f"{HEAD}{top}\nclass Bad{base}:\n    def {METHOD[kind]}:\n{indent(body, ' ' * 8)}\n{rest}"
        f"@hookimpl\ndef selfloop_{hook}(): return [Component({name!r}, Bad{gives})]\n"
    )


@pytest.fixture
def install(write: Write, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with one plugin, as pip leaves it on the path."""

    def _install(code: str, package: str = "lost", entry: str = "lost") -> None:
        module = f"{package}_plugin"
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = f"site-{package}/{package}-1.0.dist-info"
        folder = write(
            {
                f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
                f"{info}/entry_points.txt": f"[selfloop]\n{entry} = {module}\n",
                f"site-{package}/{module}.py": code,
            }
        )
        monkeypatch.syspath_prepend(str(folder / f"site-{package}"))

    return _install


def judged(query: Query, run: Path, detector: str) -> list[Any]:
    """Return what a detector said of each question, in the order asked."""
    tables = "verdicts v JOIN attempts a ON a.id = v.attempt"
    select = f"SELECT a.question, v.confidence FROM {tables} WHERE detector = ? ORDER BY a.id"
    return query(run, select, detector)


# Components get tuples: nothing that one does to its input reaches another.

CHANGES = {
    "sorts": "items.sort(key=lambda claim: claim.question.text)",
    "clears": "items.clear()",
    "reverses": "items.reverse()",
    "pops": "items.pop()",
    "appends": "items.append(items[0])",
    "replaces": "items[0] = items[-1]",
    "deletes": "del items[0]",
    "writes a field": "items[0].question.text = 'Who?'",
    "writes a sample": "items[0].samples[0] = None",
    "empties the history": "told.history.outcomes.clear()",
    "replaces the backend": "told.backend = None",
}


@pytest.mark.parametrize(
    "change", CHANGES.values(), ids=[name.replace(" ", "-") for name in CHANGES]
)
def test_a_detector_that_changes_its_input_spoils_nothing(
    change: str, write: Write, selfloop: Selfloop, query: Query
) -> None:
    run = write({"bad.py": plugin(f"{change}\n{SOUND}"), "recipe.yaml": RECIPE}) / "runs" / "recipe"
    said = selfloop("run", "recipe.yaml")
    assert said.code == 0, said.text
    assert (
        selfloop(
            "run", "recipe.yaml", "--set", "detectors=[agreement]", "--set", "name=without"
        ).code
        == 0
    )
    assert (
        judged(query, run, "agreement")
        == judged(query, run.with_name("without"), "agreement")
        != []
    )
    assert judged(query, run, "bad") == []
    assert query(run, "SELECT DISTINCT step, component FROM failures") == [("verify", "bad")]
    (kind,) = {kind for (kind,) in query(run, "SELECT type FROM failures")}
    assert kind in ("AttributeError", "TypeError", "FrozenInstanceError")


# How a run ends whose only component of a kind failed every time; other kinds leave results without
# it.
EXIT_CODES = {
    "scorer": NothingAnsweredError.exit_code,
    "few_shot": NothingAnsweredError.exit_code,
    "backend": NothingAskedError.exit_code,
    "critic": StepFailedError.exit_code,
    "tuner": TunerFailedError.exit_code,
}


@pytest.mark.parametrize("kind", ["scorer", "critic", "few_shot", "backend"])
def test_every_component_gets_a_tuple(
    kind: str, write: Write, selfloop: Selfloop, query: Query
) -> None:
    run = (
        write({"bad.py": plugin("items.clear()\nyield", kind), "recipe.yaml": USE[kind]})
        / "runs"
        / "recipe"
    )
    said = selfloop("run", "recipe.yaml")
    assert said.code == EXIT_CODES[kind]
    found = query(run, "SELECT DISTINCT component, type FROM failures")
    assert found == [("bad", "AttributeError")]


def test_a_tuner_gets_a_tuple(write: Write, selfloop: Selfloop, query: Query) -> None:
    run = (
        write({"bad.py": plugin("told.attempts.clear()", "tuner"), "recipe.yaml": USE["tuner"]})
        / "runs"
        / "recipe"
    )
    assert selfloop("run", "recipe.yaml").code == TunerFailedError.exit_code
    assert query(run, "SELECT step, component, type FROM failures") == [
        ("tune", "bad", "AttributeError")
    ]


IMMUTABLE = (str, int, float, bool, type(None))


def mutable_parts(annotation: Any) -> Iterator[Any]:
    """Yield the types within an annotation of which a value could be changed in place."""
    origin = get_origin(annotation)
    if origin is Literal or annotation in IMMUTABLE or annotation is Ellipsis:
        return
    if origin in (tuple, frozenset) or (origin is not None and origin not in (list, dict, set)):
        for part in get_args(annotation):
            yield from mutable_parts(part)
    elif not (is_dataclass(annotation) and vars(annotation)["__dataclass_params__"].frozen):
        yield annotation


def frozen_records() -> list[type[Any]]:
    named = [*vars(records).values(), *vars(events).values(), History]
    return [one for one in named if isinstance(one, type) and is_dataclass(one)]


@pytest.mark.parametrize("record", frozen_records(), ids=lambda record: record.__name__)
def test_no_part_of_a_record_can_be_changed(record: type[Any]) -> None:
    hints = get_type_hints(record)
    assert record.__dataclass_params__.frozen
    found = {field.name: list(mutable_parts(hints[field.name])) for field in fields(record)}
    assert {name: parts for name, parts in found.items() if parts} == {}


def test_the_walk_over_records_can_fail() -> None:
    assert list(mutable_parts(dict[str, int])) == [dict[str, int]]
    assert list(mutable_parts(tuple[list[int], ...])) == [list[int]]


# Results are matched to the inputs.

ASKED = tuple(Question(f"Question {number}?", "test") for number in range(5))


def scored(results: Callable[[Any], Any]) -> list[Score | Failed]:
    return capture_each("ask", "bad", results, ASKED, Score, lambda failure: None)


@given(st.permutations(ASKED))
@settings(deadline=None)
def test_a_mapping_is_matched_whatever_its_order(order: list[Question]) -> None:
    results = {question: Score("bad", float(ASKED.index(question))) for question in order}
    assert [score.value for score in match_results(results, ASKED, Score)] == [
        0.0,
        1.0,
        2.0,
        3.0,
        4.0,
    ]


def test_a_list_that_changes_later_changes_nothing() -> None:
    kept = [Score("bad", float(place)) for place in range(5)]
    found = scored(lambda items: kept[: len(items)])
    kept.clear()
    assert [score.value for score in found if isinstance(score, Score)] == [0.0, 1.0, 2.0, 3.0, 4.0]


def endless() -> Iterator[Score]:
    while True:
        yield Score("bad", 1.0)


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a set": (
        lambda items: {Score("bad", float(place)) for place in range(len(items))},
        "not a list of results",
    ),
    "a text": (lambda items: "x" * len(items), "gave a str"),
    "a generator without an end": (lambda items: endless(), "gave more than 1 results for 1 items"),
    "a mapping that lacks one": (lambda items: {}, "without a result for item 0"),
    "a mapping of something else": (
        lambda items: dict.fromkeys((*items, Question("Else?", "test")), Score("bad", 1.0)),
        "1 results for unknown items",
    ),
    "a mapping by position": (
        lambda items: dict(enumerate([Score("bad", 1.0)] * len(items))),
        "without a result",
    ),
    "None": (lambda items: None, "NoneType"),
}


@pytest.mark.parametrize(
    ("results", "message"), WRONG.values(), ids=[name.replace(" ", "-") for name in WRONG]
)
def test_results_that_cannot_be_matched_are_failures(
    results: Callable[[Any], Any], message: str
) -> None:
    found = scored(results)
    assert len(found) == len(ASKED)
    for lost in found:
        assert isinstance(lost, Failed)
        assert message in lost.failure.message


@given(
    st.lists(st.sampled_from([None, 1.0, "x", Score("bad", 1.0), Verdict("bad", 0.5)]), max_size=7)
)
@settings(deadline=None)
def test_whatever_is_returned_there_is_one_result_an_item(results: list[Any]) -> None:
    found = scored(lambda items: results)
    assert len(found) == len(ASKED)
    assert all(isinstance(one, Score | Failed) for one in found)
    if results != [Score("bad", 1.0)] * 5 and len(results) != 1:
        assert all(isinstance(one, Failed) for one in found)


@pytest.mark.parametrize(
    "record",
    [
        Verdict("bad", -0.1),
        Verdict("bad", float("nan")),
        Score("bad", float("inf")),
        Score("bad", float("nan")),
        AdapterProof(None, float("nan")),
        Completion("a", (1,), (0.5,)),
        Completion("a", (1,), (float("nan"),)),
        Completion("a", (1, 2), (-0.5,)),
        Completion("a", (1,), (-0.5,), entropies=(-1.0,)),
        Completion("a", (1,), (-0.5,), entropies=()),
        Completion("a", (1,), (-0.5,), margin=float("nan")),
    ],
    ids=repr,
)
def test_numbers_that_cannot_be_are_refused(record: Any) -> None:
    assert impossible(record)


@pytest.mark.parametrize(
    "record",
    [
        Verdict("fine", None),
        Verdict("fine", 1.0),
        Score("fine", -3.5),
        Completion("a"),
        Completion("a", (1,), (float("-inf"),), entropies=(0.0,), margin=1.0),
        Completion("a", (1,)),
    ],
    ids=repr,
)
def test_numbers_that_can_be_are_not(record: Any) -> None:
    assert impossible(record) == ""


BACKENDS = {
    "log-probabilities are NaN": "yield i, replace(c, logprobs=(float('nan'),) * len(c.tokens))",
    "a request is refused without end": "\n    while True: yield i, RequestError('no')",
    "a sample comes twice": "yield i, c; yield i, c",
    "a sample too many": "yield i, replace(c, sample=99)",
    "another request": "yield i + 1000, c",
    "a position that is none": "yield 'first', c",
}


@pytest.mark.parametrize("fault", BACKENDS)
def test_a_backend_gives_what_it_was_asked_for(
    fault: str, write: Write, selfloop: Selfloop, query: Query
) -> None:
    body = f"for i, c in super().generate(items):\n    {BACKENDS[fault]}"
    top = "from dataclasses import replace\nfrom selfloop.errors import RequestError"
    folder = write({"bad.py": plugin(body, "backend", top), "recipe.yaml": USE["backend"]})
    said = selfloop("run", "recipe.yaml")
    assert said.code == 7, "nothing could be asked"
    found = query(folder / "runs" / "recipe", "SELECT DISTINCT component FROM failures")
    assert found == [("bad",)]


def test_a_detector_cannot_change_the_model_for_the_others(
    write: Write, selfloop: Selfloop, query: Query
) -> None:
    body = f"told.backend.close()\ntold.backend.load_adapter(None)\n{SOUND}"
    run = write({"bad.py": plugin(body), "recipe.yaml": RECIPE}) / "runs" / "recipe"
    assert selfloop("run", "recipe.yaml").code == 0
    assert query(run, "SELECT DISTINCT component, type, message FROM failures") == [
        ("bad", "PluginError", "only a tuner may change the adapter that is in effect")
    ]


def test_a_tuner_that_fails_leaves_the_adapter_as_it_was(
    write: Write, selfloop: Selfloop, query: Query
) -> None:
    body = "told.backend.load_adapter(Adapter('a', 'f00'))\nraise RuntimeError('lost')"
    recipe = USE["tuner"].replace("rounds: 1", "rounds: 2")
    run = write({"bad.py": plugin(body, "tuner"), "recipe.yaml": recipe}) / "runs" / "recipe"
    assert selfloop("run", "recipe.yaml").code == TunerFailedError.exit_code
    assert query(run, "SELECT count(*) FROM rounds") == [(2,)]
    assert query(run, "SELECT count(*) FROM completions WHERE data LIKE '%f00%'") == [(0,)]
    assert query(run, "SELECT count(*) FROM completions")[0][0] > 8, (
        "the second round asked the model too"
    )


# Whatever a plugin raises is contained, and named.

RAISED = {
    "SystemExit": ("raise SystemExit(0)", "SystemExit"),
    "exit": ("sys.exit('gone')", "SystemExit"),
    "GeneratorExit": ("raise GeneratorExit", "GeneratorExit"),
    "own": ("raise type('Own', (BaseException,), {})('mine')", "Own"),
    "derived from Ctrl-C": ("raise type('Break', (KeyboardInterrupt,), {})('mine')", "Break"),
    "cancelled": ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
    "StopIteration": ("raise StopIteration", "StopIteration"),
    "a group": ("raise BaseExceptionGroup('many', [SystemExit(1)])", "BaseExceptionGroup"),
    "recursion": ("(lambda f: f(f))(lambda f: f(f))", "RecursionError"),
}


@pytest.mark.parametrize("kind", METHOD)
@pytest.mark.parametrize("raised", ["SystemExit", "GeneratorExit", "own", "derived from Ctrl-C"])
def test_what_a_component_raises_is_a_failure(
    kind: str, raised: str, write: Write, selfloop: Selfloop, query: Query
) -> None:
    code, name = RAISED[raised]
    run = write({"bad.py": plugin(code, kind), "recipe.yaml": USE[kind]}) / "runs" / "recipe"
    assert selfloop("run", "recipe.yaml").code == EXIT_CODES.get(kind, 0)
    assert query(run, "SELECT DISTINCT component, type FROM failures") == [("bad", name)]


@pytest.mark.parametrize("raised", RAISED)
def test_whatever_is_raised_is_a_failure(
    raised: str, write: Write, selfloop: Selfloop, query: Query
) -> None:
    code, name = RAISED[raised]
    run = write({"bad.py": plugin(code), "recipe.yaml": RECIPE}) / "runs" / "recipe"
    assert selfloop("run", "recipe.yaml").code == 0
    assert query(run, "SELECT DISTINCT component, type FROM failures") == [("bad", name)]


@pytest.mark.parametrize("raised", [*RAISED, "Ctrl-C"])
def test_whatever_is_raised_at_import_leaves_the_commands(
    raised: str, install: Install, selfloop: Selfloop
) -> None:
    code, name = RAISED.get(raised, ("raise KeyboardInterrupt", "KeyboardInterrupt"))
    install(f"import sys\n{code}")
    listed = selfloop("plugins")
    assert listed.code == 0
    assert f"broken       lost: plugin lost could not be imported: {name}" in listed.err
    assert "It comes from lost 1.0." in listed.err
    assert selfloop("--help").code == 0


@pytest.mark.parametrize("raised", RAISED)
def test_whatever_is_raised_by_a_constructor_is_one_message(
    raised: str, write: Write, selfloop: Selfloop
) -> None:
    code, name = RAISED[raised]
    built = plugin(SOUND).replace(
        "class Bad:", f"class Bad:\n    def __init__(self):\n        {code}"
    )
    write({"bad.py": built, "recipe.yaml": RECIPE})
    said = selfloop("run", "recipe.yaml")
    assert (said.code, said.out) == (4, "")
    assert f"the detector bad cannot be built: {name}" in said.err


def test_ctrl_c_in_a_plugin_stops_the_run(write: Write, selfloop: Selfloop) -> None:
    write({"bad.py": plugin("signal.raise_signal(signal.SIGINT)"), "recipe.yaml": RECIPE})
    said = selfloop("run", "recipe.yaml")
    assert said.code == 130
    assert "stopped; the finished work is stored" in said.err


def test_ctrl_c_while_a_plugin_is_imported_stops_the_command(
    install: Install, selfloop: Selfloop
) -> None:
    install("import signal\nsignal.raise_signal(signal.SIGINT)")
    before = signal.getsignal(signal.SIGINT)
    assert selfloop("plugins").code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_a_command_that_breaks_is_named_with_its_package(
    install: Install, selfloop: Selfloop
) -> None:
    command = "import click\n@click.command('extra')\ndef extra(): {}['nothing']\n"
    install(f"{HEAD}{command}@hookimpl\ndef selfloop_commands(): return [extra]\n")
    said = selfloop("extra")
    assert (said.code, said.out) == (4, "")
    assert (
        "the command extra of the plugin lost (lost 1.0) is broken: KeyError: 'nothing'" in said.err
    )


# The standard output stays the command's.


def test_what_is_printed_at_import_goes_to_stderr(install: Install, selfloop: Selfloop) -> None:
    install(plugin(SOUND, top="print('hello')\nprint('no line break', end='')"))
    listed = selfloop("plugins", "bad", "--json")
    assert json.loads(listed.out)["components"][0]["name"] == "bad"
    assert "lost printed: hello\nlost printed: no line break\n" in listed.err


@pytest.mark.parametrize("kind", ["detector", "observer", "source"])
def test_what_is_printed_in_a_call_does_not_spoil_json(
    kind: str, write: Write, selfloop: Selfloop
) -> None:
    body = f"print('hello')\n{SOUND if kind == 'detector' else 'return ()'}"
    write({"bad.py": plugin(body, kind), "recipe.yaml": USE[kind]})
    said = selfloop("run", "recipe.yaml", "--json")
    assert json.loads(said.out)
    assert "bad printed: hello" in said.err


def test_an_observer_may_print_where_a_detector_may_not(write: Write, selfloop: Selfloop) -> None:
    both = plugin(f"print('detector')\nlist(told.backend.generate([Request('New?')]))\n{SOUND}")
    shows = "class Shows:\n    def on_event(self, event): print('observer', type(event).__name__)\n"
    shows += "    def close(self): pass\n@hookimpl\n"
    shows += "def selfloop_observers(): return [Component('shows', Shows)]\n"
    write({"bad.py": both + shows, "recipe.yaml": RECIPE.replace("[jsonl]", "[shows]")})
    said = selfloop("run", "recipe.yaml")
    assert "observer CompletionDone" in said.out
    assert "detector" not in said.out
    assert "bad printed: detector" in said.err
    assert "shows printed" not in said.err


def test_a_handler_that_a_plugin_installs_does_not_log_to_stdout(
    install: Install, selfloop: Selfloop
) -> None:
    top = "import logging\nlog = logging.getLogger('lost')\n"
    top += "log.addHandler(logging.StreamHandler(sys.stdout))"
    install(plugin(SOUND, top=f"{top}\nlog.warning('a warning')"))
    listed = selfloop("plugins", "bad", "--json")
    assert json.loads(listed.out)
    assert "lost printed: a warning" in listed.err


@pytest.mark.slow
def test_nothing_but_json_reaches_the_output_of_a_process(write: Write) -> None:
    noise = "os.write(1, b'raw\\n'); os.system('echo child'); print('python')"
    folder = write({"bad.py": plugin(f"{noise}\n{SOUND}", top=noise), "recipe.yaml": RECIPE})
    command = [sys.executable, "-m", "selfloop.cli", "run", "recipe.yaml", "--json"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)
    for line in ("raw", "child", "bad.py printed: python", "bad printed: python"):
        assert f"{line}\n" in done.stderr


def test_the_output_is_there_again_after_a_call(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with (
        pytest.raises(ValueError, match="out"),
        attributed_output("outer"),
        attributed_output("inner"),
    ):
        print("\x1b[31mred")
        raise ValueError("out")
    assert sys.stdout is before
    assert capsys.readouterr() == ("", "inner printed: \N{REPLACEMENT CHARACTER}[31mred\n")


STATE = {
    "working directory": ("os.chdir('/')", os.getcwd),
    "standard output": ("sys.stdout = None", lambda: sys.stdout),
    "standard error": ("import io; sys.stderr = io.StringIO()", lambda: sys.stderr),
    "excepthook": ("sys.excepthook = print", lambda: sys.excepthook),
    "recursion limit": ("sys.setrecursionlimit(5000)", sys.getrecursionlimit),
    "Ctrl-C": (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        lambda: signal.getsignal(signal.SIGINT),
    ),
}


@pytest.mark.parametrize(
    ("code", "state"), STATE.values(), ids=[name.replace(" ", "-") for name in STATE]
)
def test_an_import_leaves_the_process_as_it_was(
    code: str, state: Callable[[], Any], install: Install
) -> None:
    install(plugin(SOUND, top=code))
    before = state()
    catalog = load()
    assert state() == before
    assert catalog.find("detector", "bad")


# Names belong to one plugin.


def test_packages_with_one_entry_point_name_are_told_apart(
    install: Install, write: Write, selfloop: Selfloop
) -> None:
    install(plugin(SOUND), "one", "agreement")
    install(plugin(SOUND), "two", "agreement")
    write({"recipe.yaml": RECIPE.replace("plugins: [bad.py]\n", "")})
    said = selfloop("check", "recipe.yaml")
    assert said.code == 2
    assert (
        "two plugins offer a detector named 'bad': agreement of one 1.0 and agreement of two 1.0."
        in said.err
    )
    assert "Uninstall one of them, or rename its component." in said.err
    assert "two plugins offer a detector named 'bad'" in selfloop("plugins").err, (
        "said before a recipe needs it"
    )


def test_a_package_takes_no_component_of_ours(
    install: Install, write: Write, selfloop: Selfloop
) -> None:
    install(plugin(SOUND, name="agreement"), "lost", "agreement")
    write({"recipe.yaml": RECIPE.replace("plugins: [bad.py]\n", "").replace(", bad]", "]")})
    said = selfloop("check", "recipe.yaml")
    assert said.code == 2
    assert "'agreement': agreement (selfloop " in said.err
    assert " and agreement of lost 1.0. Uninstall one of them" in said.err
    assert selfloop("check", "recipe.yaml", "--set", "detectors=[echo]").code == 0
    assert (
        "warning: two plugins offer a detector named 'agreement'"
        in selfloop("check", "recipe.yaml", "--set", "detectors=[echo]").err
    )


@pytest.mark.parametrize("name", ["doctor", "run", "models", "report"])
def test_a_command_of_ours_stays(
    name: str, install: Install, write: Write, selfloop: Selfloop
) -> None:
    """`aaa` sorts before every plugin of ours."""
    command = f"import click\n@click.command({name!r})\ndef mine(): click.echo('stolen')\n"
    install(f"{HEAD}{command}@hookimpl\ndef selfloop_commands(): return [mine]\n", "lost", "aaa")
    write({"recipe.yaml": RECIPE.replace("plugins: [bad.py]\n", "").replace(", bad]", "]")})
    assert "stolen" not in selfloop(name, "--help").text
    for words in (["plugins"], ["check", "recipe.yaml"], ["--help"]):
        said = selfloop(*words)
        assert said.code == 0
        assert f"aaa's command {name}" in said.err
        assert (
            "has a command of that name, which stays. Rename this one, or uninstall lost 1.0."
            in said.err
        )
    kept = json.loads(selfloop("plugins", "--json").out)["components"]
    assert [row for row in kept if row["kind"] == "command" and row["plugin"] == "aaa"] == []


def test_a_plugin_with_two_components_of_one_name_is_left_out(
    install: Install, selfloop: Selfloop
) -> None:
    install(
        plugin(SOUND).replace(
            "[Component('bad', Bad)]", "[Component('bad', Bad), Component('bad', Bad)]"
        )
    )
    assert (
        "plugin lost: selfloop_detectors lists two Components named 'bad'. Rename one"
        in selfloop("plugins").err
    )


ODD_PLUGINS = {
    "a Component of its own": "class Component: pass\n@hookimpl\n"
    "def selfloop_detectors(): return [Component()]\n",
    "a command without help": (
        "import click\nclass Odd(click.Command):\n    def get_short_help_str(self, limit=45): "
        "raise ValueError\n"
        "@hookimpl\ndef selfloop_commands(): return [Odd('odd')]\n"
    ),
    "attributes that raise": "def __getattr__(name): raise SystemExit(name)\n",
    "a PluginError": "from selfloop.errors import PluginError\nraise PluginError('mine')\n",
}


@pytest.mark.parametrize("odd", ODD_PLUGINS)
def test_an_odd_plugin_leaves_every_command(
    odd: str, install: Install, write: Write, selfloop: Selfloop
) -> None:
    install(HEAD + ODD_PLUGINS[odd])
    write({"recipe.yaml": RECIPE.replace("plugins: [bad.py]\n", "").replace(", bad]", "]")})
    for words in (
        ["--help"],
        ["plugins"],
        ["plugins", "--json"],
        ["check", "recipe.yaml"],
        ["doctor", "--help"],
    ):
        said = selfloop(*words)
        assert said.code == 0, said.text
    broken = json.loads(selfloop("plugins", "--json").out)["broken"]
    assert [why for why in broken.values() if "plugin lost" not in why] == []


@given(st.sampled_from(sorted(METHOD)), st.sampled_from(sorted(RAISED)), st.integers(0, 3))
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_one_item_that_breaks_a_component_leaves_the_others(
    kind: str, raised: str, place: int
) -> None:
    """The exception comes for one question alone, at any place in the batch."""
    code, name = RAISED[raised]

    def score(items: Any) -> Any:
        if ASKED[place] in items:
            exec(f"import sys\n{code}", {"__name__": "a_plugin"})
        return [Score(kind, 1.0) for _ in items]

    found = capture_each("ask", kind, score, ASKED, Score, lambda failure: None)
    lost = [one.failure for one in found if isinstance(one, Failed)]
    assert [isinstance(one, Failed) for one in found] == [
        number == place for number in range(len(ASKED))
    ]
    assert [(failure.component, failure.type) for failure in lost] == [(kind, name)]
    assert isinstance(lost[0], Failure)
