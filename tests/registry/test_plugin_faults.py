"""A plugin may do anything wrong in any place: it is named, the others go on, and it is stored."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from textwrap import indent

import pytest
from conftest import Query, Selfloop

pytestmark = pytest.mark.slow

Write = Callable[[dict[str, str]], Path]

HEAD = (
    "from selfloop import *\nfrom selfloop.records import *\n"
    "from selfloop.testing import ScriptedBackend, WORLD\n"
)
RECIPE = """\
rounds: 2
plugins: [bad.py]
backend: scripted
ask: {questions: 4, sources: [blank_slate, topics]}
answer: {samples: 2}
observers: [jsonl]
"""
HOOK = {
    "backend": "backends",
    "source": "question_sources",
    "scorer": "scorers",
    "detector": "detectors",
    "tuner": "tuners",
    "observer": "observers",
}
# what the recipe says beside RECIPE to use the component `bad` of a kind
USE = {
    "backend": RECIPE.replace("backend: scripted", "backend: bad"),
    "source": RECIPE.replace("[blank_slate, topics]", "[bad, blank_slate, topics]"),
    "scorer": RECIPE.replace(
        "topics]}", "topics], scorers: [bad, {kind: well_formed, min_score: 1}]}"
    ),
    "detector": RECIPE + "detectors: [agreement, bad]\n",
    "tuner": RECIPE + "tuner: bad\n",
    "observer": RECIPE.replace("[jsonl]", "[bad, jsonl]"),
}
# a component of each kind that does nothing wrong, and what may stand in place of one of its
# methods
SOUND = {
    "backend": {},
    "source": {
        "ask": "def ask(self, context): return [Question('What is the capital of Chad?', 'bad')]"
    },
    "scorer": {
        "score": "def score(self, questions, past): return [Score('bad', 1.0) for q in questions]"
    },
    "detector": {
        "verify": "def verify(self, claims, context): return [Verdict('bad', 0.5) for c in claims]"
    },
    "tuner": {"tune": "def tune(self, context): return Adapter('a', 'f00')"},
    "observer": {"on_event": "def on_event(self, event): pass", "close": "def close(self): pass"},
}


def plugin(kind: str, method: str = "", *, build: str = "Bad", name: str = "bad") -> str:
    """Return a plugin file with one component, `method` in place of the sound one."""
    methods = SOUND[kind] | (
        {method.split("(")[0].removeprefix("def ").strip(): method} if method else {}
    )
    body = "\n".join(methods.values()) or "pass"
    base = "(ScriptedBackend)" if kind == "backend" else ""
    gives = ", gives=frozenset({'logprobs', 'chat', 'adapters'})" if kind == "backend" else ""
    return (
        f"{HEAD}class Bad{base}:\n{indent(body, '    ')}\n"
        f"@hookimpl\ndef selfloop_{HOOK[kind]}():\n    return [Component({name!r}, "
        f"{build}{gives})]\n"
    )


BOOM = "raise RuntimeError('boom')"
EMPTY = "def on_event(self, event):\n    if type(event).__name__ == "


# kind, the method as the plugin has it, the failure's component and type, a part of its message
RUNS = {
    "source raises": ("source", f"def ask(self, context): {BOOM}", "bad", "RuntimeError", "boom"),
    "source raises midway": (
        "source",
        f"def ask(self, context):\n    yield Question('Why is that?', 'bad')\n    {BOOM}",
        *("bad", "RuntimeError", "boom"),
    ),
    "source exits": (
        "source",
        "def ask(self, context): raise SystemExit(0)",
        "bad",
        "SystemExit",
        "0",
    ),
    "source gives None": (
        "source",
        "def ask(self, context): return None",
        "bad",
        "TypeError",
        "NoneType",
    ),
    "source gives text": (
        "source",
        "def ask(self, context): return ['Why?']",
        "bad",
        "TypeError",
        "a str, not a Quest",
    ),
    "source's text is none": (
        "source",
        "def ask(self, context): return [Question(7, 'bad')]",
        *("bad", "TypeError", "a Question whose text is 7"),
    ),
    "scorer raises": (
        "scorer",
        f"def score(self, questions, past): {BOOM}",
        "bad",
        "RuntimeError",
        "boom",
    ),
    "scorer gives too few": (
        "scorer",
        "def score(self, qs, past): return []",
        "bad",
        "ValueError",
        "0 results for 1",
    ),
    "scorer gives too many": (
        "scorer",
        "def score(self, qs, past): return [Score('bad', 1.0)] * (len(qs) + 1)",
        *("bad", "ValueError", "2 results for 1"),
    ),
    "scorer gives numbers": (
        "scorer",
        "def score(self, qs, past): return [1.0 for q in qs]",
        *("bad", "TypeError", "gave a float, not a Score"),
    ),
    "score is text": (
        "scorer",
        "def score(self, qs, past): return [Score('bad', 'high') for q in qs]",
        *("bad", "TypeError", "a Score whose value is 'high'"),
    ),
    "detector raises": (
        "detector",
        f"def verify(self, claims, context): {BOOM}",
        "bad",
        "RuntimeError",
        "boom",
    ),
    "detector exits": (
        "detector",
        "def verify(self, claims, context): raise SystemExit(3)",
        "bad",
        "SystemExit",
        "3",
    ),
    "detector cannot say what": (
        "detector",
        "def verify(self, claims, context):\n    class Mute(Exception):\n        def "
        "__str__(self): raise ValueError\n"
        "    raise Mute",
        *("bad", "Mute", "cannot be read"),
    ),
    "detector gives None": (
        "detector",
        "def verify(self, cs, context): return None",
        "bad",
        "TypeError",
        "NoneType",
    ),
    "detector gives too few": (
        "detector",
        "def verify(self, cs, context): return []",
        "bad",
        "ValueError",
        "0 results",
    ),
    "detector gives one for all": (
        "detector",
        "def verify(self, claims, context): return [Verdict('bad', 0.5)]",
        *("bad", "ValueError", "gave 1 results for "),
    ),
    "detector gives too many": (
        "detector",
        "def verify(self, cs, context): return [Verdict('bad', 0.5)] * 99",
        *("bad", "ValueError", "99 results for 1"),
    ),
    "detector gives floats": (
        "detector",
        "def verify(self, cs, context): return [0.5 for c in cs]",
        *("bad", "TypeError", "gave a float, not a Verdict"),
    ),
    "generator breaks midway": (
        "detector",
        f"def verify(self, cs, context):\n    yield Verdict('bad', 0.5)\n    {BOOM}",
        *("bad", "RuntimeError", "boom"),
    ),
    "confidence over 1": (
        "detector",
        "def verify(self, cs, context): return [Verdict('bad', 1.5) for c in cs]",
        *("bad", "ValueError", "confidence 1.5 is not in [0, 1]"),
    ),
    "confidence is no number": (
        "detector",
        "def verify(self, cs, context): return [Verdict('bad', float('nan')) for c in cs]",
        *("bad", "ValueError", "confidence nan is not in [0, 1]"),
    ),
    "confidence is text": (
        "detector",
        "def verify(self, cs, context): return [Verdict('bad', 'high') for c in cs]",
        *("bad", "TypeError", "a Verdict whose confidence is 'high'"),
    ),
    "tuner raises": (
        "tuner",
        f"def tune(self, *args): {BOOM}",
        "bad",
        "RuntimeError",
        "boom",
    ),
    "tuner gives a path": (
        "tuner",
        "def tune(self, context): return context.folder",
        *("bad", "TypeError", "not an Adapter"),
    ),
    "tuner's adapter has no hash": (
        "tuner",
        "def tune(self, context): return Adapter('a', None)",
        *("bad", "TypeError", "an Adapter whose sha256 is None"),
    ),
    "tuner tells no number": (
        "tuner",
        "def tune(self, context): context.on_batch(1, 2, 'low')",
        *("bad", "ValueError", "could not convert string to float: 'low'"),
    ),
    "observer raises": (
        "observer",
        f"def on_event(self, event): {BOOM}",
        "bad",
        "RuntimeError",
        "boom",
    ),
    "observer raises at a round's end": (
        "observer",
        f"{EMPTY}'RoundEnded' and event.round.number == 2: {BOOM}",
        *("bad", "RuntimeError", "boom"),
    ),
    "observer raises at the end": (
        "observer",
        f"{EMPTY}'RunEnded': {BOOM}",
        "bad",
        "RuntimeError",
        "boom",
    ),
    "observer raises on closing": (
        "observer",
        f"def close(self): {BOOM}",
        "bad",
        "RuntimeError",
        "boom",
    ),
    "backend raises on closing": (
        "backend",
        f"def close(self): {BOOM}",
        "bad",
        "RuntimeError",
        "boom",
    ),
    "backend's file is damaged": (
        "backend",
        "def generate(self, requests):\n    from selfloop.errors import ModelError\n"
        "    if 20 < self.generated < 40:\n        self.generated = 40\n        raise "
        "ModelError('damaged')\n"
        "    yield from super().generate(requests)",
        *("bad", "ModelError", "damaged"),
    ),
    "backend breaks midway": (
        "backend",
        "def generate(self, requests):\n    for i, found in "
        "enumerate(super().generate(requests)):\n"
        f"        if i == 7 and self.generated > 40: {BOOM}\n        yield found",
        *("bad", "RuntimeError", "boom"),
    ),
    "backend ends early": (
        "backend",
        "def generate(self, requests):\n    for i, found in "
        "enumerate(super().generate(requests)):\n"
        "        if i == 7 and self.generated > 40: return\n        yield found",
        *("bad", "IncompleteBatch", "ended before all completions"),
    ),
    "backend says all twice": (
        "backend",
        "def generate(self, requests):\n    drafts = any(r.sampling.temperature == 0 for r in "
        "requests)\n"
        "    for i, found in enumerate(super().generate(requests)):\n        yield found\n"
        "        if drafts and i > 6: yield found",
        *("bad", "ValueError", "which nobody asked for"),
    ),
    "backend answers somebody else": (
        "backend",
        "def generate(self, requests):\n    for i, found in super().generate(requests):\n"
        "        yield (i if self.generated < 45 else 99), found",
        *("bad", "ValueError", "gave a completion for request 99"),
    ),
    "backend gives text": (
        "backend",
        "def generate(self, requests):\n    for i, found in super().generate(requests):\n"
        "        yield i, (found if self.generated < 45 else 'Cairo')",
        *("bad", "TypeError", "gave a str, not a Completion"),
    ),
    "backend gives no pairs": (
        "backend",
        "def generate(self, requests):\n    for found in super().generate(requests):\n"
        "        yield found if self.generated < 45 else None",
        *("bad", "TypeError", "NoneType"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "method", "component", "error", "message"),
    RUNS.values(),
    ids=[name.replace(" ", "-") for name in RUNS],
)
def test_a_fault_in_a_run_is_data(
    kind: str,
    method: str,
    component: str,
    error: str,
    message: str,
    write: Write,
    selfloop: Selfloop,
    query: Query,
) -> None:
    folder = write({"bad.py": plugin(kind, method), "recipe.yaml": USE[kind]})
    code = {"scorer": 8, "tuner": 10}.get(kind, 0)  # nothing was answered, nothing was learnt
    ran = selfloop("run", "recipe.yaml")
    assert ran.code == code, ran.text
    run = folder / "runs" / "recipe"

    found = query(run, "SELECT DISTINCT component, type FROM failures")
    assert found == [(component, error)], "attributed to the component that did it, and to no other"
    assert query(run, "SELECT 1 FROM failures WHERE message LIKE ?", f"%{message}%")
    shown = selfloop("show", run, "--failures").out
    assert f" {component}: {error}: " in shown
    assert message in shown
    assert "failures: selfloop show" in ran.out, "the summary says that there were failures"

    decisions = [
        d for (d,) in query(run, "SELECT decision FROM attempts WHERE decision != 'dropped'")
    ]
    assert len(query(run, "SELECT 1 FROM rounds")) == 2, "every round was played"
    if kind == "scorer":
        assert set(decisions) == {"failed"}, "without its score a question is not asked"
    else:
        assert set(decisions) - {"failed"}, "the others go on"
    assert selfloop("resume", run).code == code, "what is stored can be read again"


def test_the_detector_that_broke_is_the_only_one_missing(
    write: Write, selfloop: Selfloop, query: Query
) -> None:
    picky = (
        "def verify(self, claims, context):\n    if any('Egypt' in c.question.text for c in "
        "claims): raise KeyError\n"
        "    return [Verdict('bad', 0.5) for c in claims]"
    )
    run = (
        write({"bad.py": plugin("detector", picky), "recipe.yaml": USE["detector"]})
        / "runs"
        / "recipe"
    )
    assert selfloop("run", "recipe.yaml").code == 0
    broke = query(
        run,
        "SELECT DISTINCT a.question FROM failures f JOIN attempts a ON a.id = f.attempt WHERE "
        "f.component = 'bad'",
    )
    assert broke == [("What is the capital of Egypt?",)]
    judged = query(run, "SELECT DISTINCT attempt FROM verdicts WHERE detector = 'bad'")
    asked = query(
        run, "SELECT id FROM attempts WHERE decision != 'dropped' AND question NOT LIKE '%Egypt%'"
    )
    assert len(judged) == len(asked) > 2
    assert query(
        run,
        "SELECT 1 FROM attempts WHERE question LIKE '%Egypt%' AND decision NOT IN ('dropped', "
        "'failed')",
    )


def test_numbers_of_numpy_are_numbers(write: Write, selfloop: Selfloop, query: Query) -> None:
    method = (
        "def verify(self, claims, context):\n    import numpy\n"
        "    return (Verdict('bad', numpy.float32(0.5)) for c in claims)"
    )
    run = (
        write({"bad.py": plugin("detector", method), "recipe.yaml": USE["detector"]})
        / "runs"
        / "recipe"
    )
    assert selfloop("run", "recipe.yaml").code == 0
    assert query(run, "SELECT * FROM failures") == []
    assert query(run, "SELECT DISTINCT confidence FROM verdicts WHERE detector = 'bad'") == [(0.5,)]


@pytest.mark.parametrize("body", [BOOM, "return None", "return AdapterProof(adapter, 'much')"])
def test_an_adapter_that_cannot_be_loaded_is_the_backends_fault(
    body: str, write: Write, selfloop: Selfloop, query: Query
) -> None:
    recipe = USE["backend"].replace("[bad.py]", "[bad.py, tuner.py]") + "tuner: fine\n"
    files = {
        "bad.py": plugin("backend", f"def load_adapter(self, adapter): {body}"),
        "recipe.yaml": recipe,
    }
    run = write(files | {"tuner.py": plugin("tuner", name="fine")}) / "runs" / "recipe"
    assert selfloop("run", "recipe.yaml").code == 10
    assert query(run, "SELECT DISTINCT step, component FROM failures") == [("tune", "bad")]
    assert query(run, "SELECT DISTINCT adapter FROM rounds") == [(None,)], (
        "the last good adapter stays"
    )


def test_an_adapter_that_cannot_be_loaded_again_stops_a_resumed_run(
    write: Write, selfloop: Selfloop, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = (
        "def load_adapter(self, adapter):\n    import os\n    mood = os.environ.get('MOOD')\n"
        f"    if mood == 'broken': {BOOM}\n    if mood == 'stopped' and adapter.round == 2: raise "
        "KeyboardInterrupt\n"
        "    return super().load_adapter(adapter)"
    )
    monkeypatch.setenv("MOOD", "stopped")
    recipe = USE["backend"].replace("[bad.py]", "[bad.py, tuner.py]") + "tuner: fine\n"
    files = {"tuner.py": plugin("tuner", name="fine"), "recipe.yaml": recipe}
    run = write(files | {"bad.py": plugin("backend", once)}) / "runs" / "recipe"
    assert selfloop("run", "recipe.yaml").code == 130, "stopped in the second round"
    monkeypatch.setenv("MOOD", "broken")
    said = selfloop("resume", run)
    assert (said.code, said.out) == (4, "")
    assert "the component bad is broken: RuntimeError: boom" in said.err
    monkeypatch.setenv("MOOD", "mended")
    assert selfloop("resume", run).code == 0, "with the backend mended it goes on"
    assert len(query(run, "SELECT 1 FROM rounds")) == 2


def test_two_observers_that_raise_at_everything(
    write: Write, selfloop: Selfloop, query: Query
) -> None:
    bad = plugin("observer", f"def on_event(self, event): {BOOM}")
    recipe = RECIPE.replace("[jsonl]", "[bad, worse, jsonl]").replace(
        "[bad.py]", "[bad.py, worse.py]"
    )
    run = (
        write({"bad.py": bad, "worse.py": bad.replace("'bad'", "'worse'"), "recipe.yaml": recipe})
        / "runs"
        / "recipe"
    )
    assert selfloop("run", "recipe.yaml").code == 0
    assert set(query(run, "SELECT component FROM failures")) == {("bad",), ("worse",)}
    events = (run / "events.jsonl").read_text()
    assert events.count('"ComponentFailed"') == 2
    assert '"RunEnded"' in events


def test_an_observer_that_raises_is_closed_once_at_the_end(
    write: Write, selfloop: Selfloop
) -> None:
    bad = plugin("observer", f"def on_event(self, event): {BOOM}")
    events = "__import__('io').open('runs/recipe/events.jsonl').read()"
    closing = f"def close(self): print('closed', 'RunEnded' in {events})"
    write(
        {"bad.py": bad.replace(SOUND["observer"]["close"], closing), "recipe.yaml": USE["observer"]}
    )
    said = selfloop("run", "recipe.yaml")
    assert (said.code, said.out.count("closed"), said.out.count("closed True")) == (0, 1, 1), (
        said.text
    )


def test_a_backend_that_cannot_say_a_word_asks_nothing(
    write: Write, selfloop: Selfloop, query: Query
) -> None:
    for body in (BOOM, "return None", "return 7"):
        files = {
            "bad.py": plugin("backend", f"def generate(self, requests): {body}"),
            "recipe.yaml": USE["backend"],
        }
        write(files)
        said = selfloop("run", "recipe.yaml", "--set", "name=mute")
        assert said.code == 7, said.text
        assert "bad: " in said.err
    run = Path("runs/mute")
    assert query(run, "SELECT DISTINCT component, type, message FROM failures") == [
        ("bad", "RuntimeError", "boom")
    ]


# what stops a run before a model loads: the plugin file, the recipe that uses it, exit code, what
# is said
STOPS = {
    **{
        f"{kind} hook raises": (
            f"{HEAD}@hookimpl\ndef selfloop_{hook}(): {BOOM}\n",
            RECIPE,
            4,
            f"plugin bad.py raised in selfloop_{hook}: RuntimeError: boom",
        )
        for kind, hook in {**HOOK, "command": "commands"}.items()
    },
    **{
        f"{kind} hook gives None": (
            f"{HEAD}@hookimpl\ndef selfloop_{hook}(): pass\n",
            RECIPE,
            4,
            f"plugin bad.py: selfloop_{hook} must return a list, not NoneType.",
        )
        for kind, hook in {**HOOK, "command": "commands"}.items()
    },
    **{
        f"{kind} hook lists a class": (
            f"{HEAD}@hookimpl\ndef selfloop_{hook}(): return [int]\n",
            RECIPE,
            4,
            f"plugin bad.py: selfloop_{hook} must list {what}s, but one of them is a type.",
        )
        for kind, (hook, what) in {
            **{kind: (hook, "Component") for kind, hook in HOOK.items()},
            "command": ("commands", "Command"),
        }.items()
    },
    **{
        f"{kind} cannot be built": (
            plugin(kind, build="lambda: 1 / 0"),
            USE[kind],
            4,
            f"the {kind} bad cannot be built: ZeroDivisionError: division by zero",
        )
        for kind in HOOK
    },
    **{
        f"{kind} is built as something else": (
            plugin(kind, build="lambda: 'x'"),
            USE[kind],
            4,
            f"the {kind} bad built a str, which has no {method}(",
        )
        for kind, method in {
            **{kind: next(iter(methods)) for kind, methods in SOUND.items() if methods},
            "backend": "describe",
        }.items()
    },
    **{
        f"{kind} is named like a built-in": (
            plugin(kind, name=name),
            USE[kind]
            .replace("bad,", f"{name},")
            .replace(", bad", f", {name}")
            .replace(": bad\n", f": {name}\n"),
            2,
            f"two plugins offer a {kind} named {name!r}: {owner} (selfloop {version('selfloop')}) "
            "and bad.py.",
        )
        for kind, name, owner in [
            ("backend", "scripted", "scripted"),
            ("source", "topics", "topics"),
            ("scorer", "novelty", "novelty"),
            ("detector", "agreement", "agreement"),
            ("observer", "jsonl", "jsonl"),
        ]
    },
    "builder exits": (
        plugin("detector", build="lambda: exit(0)"),
        USE["detector"],
        4,
        "the detector bad cannot be built: SystemExit: 0",
    ),
    "file exits": (
        "raise SystemExit(0)",
        RECIPE,
        4,
        "plugin bad.py could not be imported: SystemExit: 0",
    ),
    "build is no function": (
        plugin("detector", build="3"),
        RECIPE,
        4,
        "'bad' whose build is a int, not a class",
    ),
    "name is none": (plugin("detector", name=""), RECIPE, 4, "Component '' whose name is not text"),
    "needs is text": (
        plugin("detector", build="Bad, needs='logprobs'"),
        RECIPE,
        4,
        "Component 'bad' whose needs and gives must be sets of words",
    ),
    "reads no model": (
        plugin("detector", build="Bad, reads='both'"),
        RECIPE,
        4,
        "Component 'bad' whose reads must be 'base' or 'tuned'",
    ),
    "prompts is text": (
        plugin("detector", build="Bad, prompts='here'"),
        RECIPE,
        4,
        "Component 'bad' whose prompts is a str, not a Path",
    ),
    "an option's type is unknown": (
        plugin("detector", "def __init__(self, *, n: 'Nope' = 1): pass"),
        USE["detector"],
        2,
        "detectors.1.kind: selfloop_file_plugin_bad.Bad: its options cannot be read: NameError: "
        "name 'Nope'",
    ),
    "options cannot be read": (
        plugin("detector", build="dict"),
        USE["detector"],
        2,
        "detectors.1.kind: builtins.dict: its options cannot be read: ValueError",
    ),
    "hook takes too much": (
        f"{HEAD}@hookimpl\ndef selfloop_detectors(config): return []\n",
        RECIPE,
        4,
        "plugin bad.py does not fit the hooks: PluginValidationError",
    ),
    "model cannot be described": (
        plugin("backend", f"def describe(self): {BOOM}"),
        USE["backend"],
        4,
        "the component bad is broken: RuntimeError: boom",
    ),
    "description is no ModelInfo": (
        plugin("backend", "def describe(self): return {}"),
        USE["backend"],
        4,
        "the component bad is broken: TypeError: gave a dict, not a ModelInfo",
    ),
    "backend's check raises": (
        plugin("backend", build="Bad, check=lambda: 1 / 0"),
        USE["backend"],
        4,
        "the backend bad cannot be built: ZeroDivisionError",
    ),
}


@pytest.mark.parametrize(
    ("code", "recipe", "exit_code", "message"),
    STOPS.values(),
    ids=[name.replace(" ", "-") for name in STOPS],
)
def test_a_fault_that_no_run_can_survive_stops_it_before_it_begins(
    code: str, recipe: str, exit_code: int, message: str, write: Write, selfloop: Selfloop
) -> None:
    folder = write({"bad.py": code, "recipe.yaml": recipe})
    said = selfloop("run", "recipe.yaml")
    assert said.code == exit_code, said.text
    assert message in said.err
    assert said.out == ""
    assert not list((folder / "runs").glob("*")), "no empty run is left behind"


BROKEN = {
    "raises on import": ("1 / 0", "could not be imported: ZeroDivisionError: division by zero"),
    "exits on import": ("raise SystemExit(5)", "could not be imported: SystemExit: 5"),
    "is not there": (None, "could not be imported: ModuleNotFoundError"),
    "raises in its last hook": (
        plugin("detector") + f"@hookimpl\ndef selfloop_commands(): {BOOM}\n",
        "raised in selfloop_commands: RuntimeError: boom",
    ),
    "misspells a hook": (
        f"{HEAD}@hookimpl\ndef selfloop_verifers(): return []\n",
        "no hook selfloop_verifers.",
    ),
}


@pytest.fixture
def install(write: Write, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Install a distribution with one plugin, as pip leaves it on the path."""

    def _install(code: str | None) -> None:
        monkeypatch.delitem(sys.modules, "lost_plugin", raising=False)
        info = "site/lost-1.0.dist-info"
        files = {f"{info}/METADATA": "Metadata-Version: 2.1\nName: lost\nVersion: 1.0\n"}
        files |= {f"{info}/entry_points.txt": "[selfloop]\nlost = lost_plugin\n"}
        files |= {"site/lost_plugin.py": code} if code is not None else {}
        monkeypatch.syspath_prepend(str(write(files) / "site"))

    return _install


@pytest.mark.parametrize(
    ("code", "why"), BROKEN.values(), ids=[name.replace(" ", "-") for name in BROKEN]
)
def test_an_installed_plugin_that_is_broken_is_left_out_and_named(
    code: str | None,
    why: str,
    install: Callable[[str | None], None],
    write: Write,
    selfloop: Selfloop,
) -> None:
    install(code)
    write({"recipe.yaml": RECIPE.replace("plugins: [bad.py]\n", "")})
    checked = selfloop("check", "recipe.yaml")
    assert checked.code == 0
    assert "warning: plugin lost could not be used and is left out: plugin lost" in checked.err
    assert why in checked.err
    listed = selfloop("plugins")
    assert (listed.code, "from lost" in listed.out) == (0, False), "it is left out whole"
    assert "broken       lost: plugin lost" in listed.err
    assert selfloop("run", "recipe.yaml").code == 0, "who does not use it does not miss it"
    assert selfloop("--help").code == 0
    missed = selfloop("check", "recipe.yaml", "--set", "detectors=[bad]")
    assert missed.code == 2
    assert "no detector named 'bad'" in missed.err
    assert "The plugin lost could not be used" in missed.err


def test_an_installed_plugin_with_an_option_that_cannot_be_read(
    install: Callable[[str | None], None], write: Write, selfloop: Selfloop
) -> None:
    install(plugin("detector", "def __init__(self, *, n: 'Nope' = 1): pass"))
    write({"recipe.yaml": RECIPE.replace("plugins: [bad.py]\n", "")})
    assert selfloop("run", "recipe.yaml").code == 0
    listed = selfloop("plugins")
    assert listed.code == 0
    assert "agreement" in listed.out
    assert "NameError: name 'Nope' is not defined" in listed.text


def test_two_installed_plugins_with_one_name_for_a_detector(
    install: Callable[[str | None], None], write: Write, selfloop: Selfloop
) -> None:
    install(plugin("detector", name="agreement"))
    recipe = RECIPE.replace("plugins: [bad.py]\n", "")
    write({"recipe.yaml": recipe, "other.yaml": recipe + "detectors: [sequence_probability]\n"})
    said = selfloop("run", "recipe.yaml", "--set", "detectors=[agreement]")
    assert (said.code, said.out) == (2, "")
    assert "two plugins offer a detector named 'agreement': agreement (selfloop " in said.err
    assert ") and lost (lost 1.0). Uninstall one of them, or rename its component." in said.err
    assert selfloop("run", "other.yaml").code == 0


def test_a_command_of_a_plugin_does_not_hide_a_built_in_one(
    install: Callable[[str | None], None], selfloop: Selfloop
) -> None:
    command = "import click\n@click.command({0!r})\ndef {0}_(): click.echo('mine')\n"
    hook = f"{HEAD}@hookimpl\ndef selfloop_commands(): return [show_, extra_]\n"
    install(command.format("show") + command.format("extra") + hook)
    assert selfloop("extra").out == "mine\n"
    assert "Show RUN" in selfloop("show", "--help").out
    left_out = (
        "lost's command show: selfloop has a command of that name, which stays. Rename this one, "
        "or uninstall"
    )
    assert f"broken       {left_out} lost 1.0." in selfloop("plugins").err
