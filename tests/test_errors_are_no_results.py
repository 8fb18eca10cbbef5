"""Errors that look like results (faults.md): each has its own exit code and message."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import Query, Said, Selfloop

from selfloop.errors import SelfloopError

pytestmark = pytest.mark.slow

Write = Callable[[Mapping[str, str | bytes]], Path]

QUESTION, OTHER = "What is the capital of France?", "What is the capital of Egypt?"
RECIPE = """\
rounds: 2
plugins: [plugin.py]
backend: moody
ask: {questions: 3, sources: [{kind: file, path: asked.txt}], scorers: []}
answer: {samples: 2}
detectors: [agreement]
observers: [jsonl]
"""
PLUGIN = """\
import os
from selfloop import Component, hookimpl
from selfloop.records import Adapter, Completion, Verdict
from selfloop.testing import ScriptedBackend

BROKEN = os.environ.get("BROKEN", "").split()

def fails(*steps):
    if set(steps) & {*BROKEN}:
        raise RuntimeError(f"the {steps[0]} is broken")

class Moody(ScriptedBackend):
    def generate(self, requests):
        fails("backend")
        if any("revise it" in str(request.prompt) for request in requests):
            fails("revision")
        yield from super().generate(requests)
    def loglikelihood(self, pairs):
        fails("backend")
        return super().loglikelihood(pairs)

class Judge:
    def __init__(self, *, name: str = "detector"):
        self.name = name
    def verify(self, claims, context):
        fails(self.name)
        return [Verdict("judge", 0.9) for claim in claims]

class Source:
    def ask(self, context):
        fails("source")
        return []

class Critic:
    revise_prompt = "revise"
    def critique(self, claims, context):
        fails("critic")
        return [Completion("Please revise it.") for claim in claims]

class Tuner:
    def tune(self, context):
        if context.round == 1:
            fails("tuner")
        (context.folder / "adapter").write_text(str(context.round))
        return Adapter(str(context.folder / "adapter"), f"sha-{context.round}")

@hookimpl
def selfloop_backends():
    gives = frozenset({"logprobs", "loglikelihood", "adapters", "entropies"})
    return [Component("moody", Moody, gives=gives)]
@hookimpl
def selfloop_detectors():
    return [Component("judge", Judge)]
@hookimpl
def selfloop_question_sources():
    return [Component("planted", Source)]
@hookimpl
def selfloop_critics():
    return [Component("critic", Critic)]
@hookimpl
def selfloop_tuners():
    return [Component("tuner", Tuner)]
"""
GOLD = json.dumps({"question": QUESTION, "answers": ["Paris"]}) + "\n"
ASKED = "".join(
    f"What is the capital of {land}?\n"
    for land in ("Egypt", "France", "Chad", "Peru", "Mali", "Iran")
)
TARGETS = {"choices": ["Paris", "Rome"], "labels": [1, 0]}
CHOICES = json.dumps({"question": QUESTION, "mc1_targets": TARGETS, "mc2_targets": TARGETS}) + "\n"


@pytest.fixture
def home(write: Write) -> Path:
    given = json.dumps({"question": QUESTION, "answer": "Paris"}) + "\n"
    files = {
        "recipe.yaml": RECIPE,
        "plugin.py": PLUGIN,
        "asked.txt": ASKED,
        "gold.jsonl": GOLD,
        "given.jsonl": given,
    }
    return write(files | {"choices.jsonl": CHOICES})


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda what: monkeypatch.setenv("BROKEN", what)


def test_every_exit_code_says_one_thing() -> None:
    own = [
        kind
        for kind in SelfloopError.__subclasses__() + _below(SelfloopError)
        if kind.exit_code > 6
    ]
    codes = [kind.exit_code for kind in dict.fromkeys(own) if kind.__module__ == "selfloop.errors"]
    assert sorted(codes) == sorted(set(codes)) and {7, 8, 9, 10, 11, 12, 130} <= set(codes)


def _below(kind: type[SelfloopError]) -> list[type[SelfloopError]]:
    return [deeper for below in kind.__subclasses__() for deeper in (below, *_below(below))]


# --- every question fails


def test_an_empty_stop_is_refused_when_the_recipe_is_read(home: Path, selfloop: Selfloop) -> None:
    for command in ("check", "run", "plan"):
        said = selfloop(command, "recipe.yaml", "--set", 'answer.stop=["\\n", ""]')
        assert said.code == 2 and "answer.stop.1" in said.err
    assert not (home / "runs").exists()


COMMANDS = {
    "run": ("run", "recipe.yaml"),
    "ask": ("ask", "recipe.yaml", QUESTION),
    "score": ("score", "recipe.yaml", "given.jsonl"),
    "eval": ("eval", "recipe.yaml", "--data", "gold.jsonl"),
    "multiple choice": ("eval", "recipe.yaml", "--data", "choices.jsonl"),
    "plan": ("plan", "recipe.yaml", "--seconds", "0"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_where_every_question_fails_there_is_no_result(
    command: str, home: Path, selfloop: Selfloop, broken: Callable[[str], None]
) -> None:
    broken("backend")
    said = selfloop(*COMMANDS[command])
    assert said.code == (4 if command == "multiple choice" else 8), said.text
    assert "moody" in said.err and "the backend is broken" in said.err
    assert "Traceback" not in said.text and "I don't know" not in said.text


def test_a_resumed_run_and_its_evaluation_say_it_too(
    home: Path, selfloop: Selfloop, broken: Callable[[str], None], query: Query
) -> None:
    broken("backend")
    said = selfloop("run", "recipe.yaml")
    assert (
        "round 1: answer failed for every question: moody: RuntimeError: the backend is broken"
        in said.out
    )
    assert "selfloop show runs/recipe --failures" in said.err
    assert query(home / "runs/recipe", "SELECT count(*) FROM attempts") == [(6,)], (
        "the records are kept"
    )
    assert selfloop("resume", "recipe").code == 8
    assert selfloop("rescore", "recipe").code == 8
    assert selfloop("eval", "recipe").code != 0
    assert '"failed"' in (home / "runs/recipe/events.jsonl").read_text().splitlines()[-1]
    data = json.loads(selfloop("resume", "recipe", "--json").out)
    assert [(step["round"], step["step"], step["questions"]) for step in data["failed_steps"]] == [
        (1, "answer", 3),
        (2, "answer", 3),
    ]


def test_a_model_that_writes_nothing_has_no_result(
    home: Path, write: Write, selfloop: Selfloop
) -> None:
    """`answer.stop: [" "]` ends every answer before it begins, where answers begin with a space."""
    write({"script.json": '{"": [" Paris"]}'})
    mute = ("--set", "backend={kind: scripted, script: script.json}", "--set", 'answer.stop=[" "]')
    for command in ("run", "eval", "ask", "plan"):
        said = selfloop(*COMMANDS[command], *mute)
        assert (
            said.code == 8
            and "the model: EmptyAnswer: it wrote nothing; see answer.stop" in said.err
        )
        assert "I don't know" not in said.out


def test_an_answered_question_beside_failed_ones_is_a_result(
    home: Path, selfloop: Selfloop
) -> None:
    backend = "backend={kind: scripted, context: 300}"
    said = selfloop("ask", "recipe.yaml", QUESTION, "word " * 400, "--set", backend, "--json")
    answered, failed = json.loads(said.out)
    assert said.code == 0 and answered["answer"]
    assert (
        "over the context of 300" in failed["error"]
        and not {"answer", "known", "guess"} & failed.keys()
    )


def test_ask_prints_an_error_and_no_answer(
    home: Path, write: Write, selfloop: Selfloop, broken: Callable[[str], None]
) -> None:
    write({"script.json": '{"": ["Paris"]}'})
    scripted = "backend={kind: scripted, script: script.json}"
    for what, backend in (("backend", "backend=moody"), ("detector", scripted)):
        broken(what)
        step = f"the {what} is broken"
        asked = ("ask", "recipe.yaml", QUESTION, "--set", "detectors=[judge]", "--set", backend)
        said = selfloop(*asked)
        assert said.code == 8 and said.out.startswith("error: ") and step in said.out
        assert "I don't know" not in said.text
        said = selfloop(*asked, "--json")
        (result,) = json.loads(said.out)
        assert said.code == 8 and step in result["error"] and "answer" not in result


# --- a step fails for all


@pytest.mark.parametrize(
    ("what", "setting", "step"),
    [
        ("detector", "detectors=[judge]", "verify failed for every question: judge"),
        (
            "detector other",
            "detectors=[{kind: judge, name: other}, judge]",
            "verify failed for every question: judge",
        ),
        ("critic", "critique=critic", "critique failed for every question: critic"),
        ("revision", "critique=critic", "revise failed for every question: moody"),
        ("source", "ask.sources=[{kind: planted}]", ""),
    ],
)
def test_a_step_that_fails_for_all_ends_the_run_with_its_code(
    what: str,
    setting: str,
    step: str,
    home: Path,
    selfloop: Selfloop,
    query: Query,
    broken: Callable[[str], None],
) -> None:
    broken(what)
    said = selfloop("run", "recipe.yaml", "--set", setting)
    if not step:
        assert said.code == 7 and "planted: RuntimeError: the source is broken" in said.err
        return
    assert said.code == 9, said.text
    assert all(f"round {number}: {step}" in said.out for number in (1, 2)), said.out
    assert "in round 1 the step" in said.err and "is broken" in said.err
    assert query(home / "runs/recipe", "SELECT count(*) FROM rounds") == [(2,)], (
        "it is played to its end"
    )
    assert selfloop("resume", "recipe").code == 9


def test_detectors_that_fail_for_all_end_score_eval_and_rescore(
    home: Path, selfloop: Selfloop, broken: Callable[[str], None]
) -> None:
    assert selfloop("run", "recipe.yaml").code == 0
    broken("detector")
    judged = ("--set", "detectors=[judge]")
    for command in (
        ("score", "recipe.yaml", "given.jsonl"),
        ("eval", "recipe.yaml", "--data", "gold.jsonl"),
    ):
        said = selfloop(*command, *judged)
        assert said.code == 9 and said.out, "what there is is printed"
    assert selfloop("rescore", "recipe", *judged).code == 9


def test_one_detector_that_fails_for_all_is_named(
    home: Path, selfloop: Selfloop, broken: Callable[[str], None]
) -> None:
    broken("detector")
    said = selfloop("run", "recipe.yaml", "--set", "detectors=[agreement, judge]")
    assert said.code == 0
    assert (
        "round 1: a detector failed for every answer, others decided: judge: RuntimeError"
        in said.out
    )


def test_a_tuner_that_failed_ends_the_run_with_its_code(
    home: Path, selfloop: Selfloop, query: Query, broken: Callable[[str], None]
) -> None:
    broken("tuner")
    for command in (("run", "recipe.yaml", "--set", "tuner=tuner"), ("resume", "recipe")):
        said = selfloop(*command)
        assert said.code == 10
        assert (
            "round 1: the tuner made no adapter: tuner: RuntimeError: the tuner is broken"
            in said.out
        )
        assert "in round 1 the tuner made no adapter" in said.err
    rounds = query(
        home / "runs/recipe", "SELECT number, adapter IS NULL FROM rounds ORDER BY number"
    )
    assert rounds == [(1, 1), (2, 0)], "nothing is lost"
    assert selfloop("eval", "runs/recipe", "--data", "gold.jsonl").code == 0, "the run is of use"


# --- --fail-under


def evaluated(selfloop: Selfloop, *options: object) -> Said:
    script = json.dumps({r"France\?": ["Paris"], "": ["I don't know"]})
    Path("script.json").write_text(script)
    backend = ("--set", "backend={kind: scripted, script: script.json}")
    return selfloop("eval", "recipe.yaml", "--data", "gold.jsonl", *backend, *options)


@pytest.mark.parametrize(
    ("requirement", "code"),
    [
        ("--fail-under accuracy=1", 0),
        ("--fail-under accuracy=1.01", 11),
        ("--fail-under accuracy.chosen=1 --fail-under precision=1 --fail-under coverage=1", 0),
        ("--fail-under precision=1 --fail-under policies.run.correct=1.5", 11),
        ("--fail-under policies.run.penalised_0.75=0.9", 0),
        ("--fail-under auroc=0", 11),  # one right answer and no wrong one: NaN, which never passes
        ("--fail-under agreement.auroc=0", 11),
        ("--fail-over brier=0 --fail-over failed=0 --fail-over agreement.ece=0.5", 0),
        ("--fail-over auroc=1", 11),
        ("--fail-under questions=2", 11),
    ],
)
def test_what_is_required_of_figures(
    requirement: str, code: int, home: Path, selfloop: Selfloop
) -> None:
    said = evaluated(selfloop, "--json", *requirement.split())
    assert said.code == code, said.err
    found = json.loads(said.out)
    assert found["accuracy"]["chosen"]["value"] == 1
    assert ("but --fail-" in said.err) == bool(code)
    again = selfloop("eval", found["run"], *requirement.split())
    assert again.code == code and "accuracy 1.00" in again.out


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        (
            "acuracy=0.5",
            "there is no figure acuracy. Did you mean 'accuracy'? Known: abstains, accuracy, ",
        ),
        ("pmi.auroc=0.5", "there is no figure pmi.auroc."),
        ("accuracy", "write METRIC=NUMBER"),
        ("accuracy=high", "write METRIC=NUMBER"),
        ("accuracy=nan", "write METRIC=NUMBER"),
        ("ece=0.1", "ece should be low. Give its maximum: --fail-over ece=0.1"),
    ],
)
def test_what_cannot_be_required_is_refused_before_the_model_is_asked(
    requirement: str, message: str, home: Path, selfloop: Selfloop
) -> None:
    said = evaluated(selfloop, "--fail-under", requirement)
    assert said.code == 2 and message in said.err and not said.out
    assert not (home / "runs").exists()


def test_figures_of_multiple_choice_are_required_too(home: Path, selfloop: Selfloop) -> None:
    chosen = ("eval", "recipe.yaml", "--data", "choices.jsonl", "--json")
    assert json.loads(selfloop(*chosen, "--fail-under", "mc1=0").out)["questions"] == 1
    assert selfloop(*chosen, "--fail-under", "mc2=1.1").code == 11
    assert selfloop(*chosen, "--fail-under", "accuracy=0").code == 2


# --- settings that a command cannot apply


@pytest.mark.parametrize(
    "setting",
    [
        *(
            "answer.samples=99",
            "seed=12",
            "rounds=9",
            "ask.questions=2",
            "tuner=none",
            "critique=plain",
            "name=other",
        ),
        *(
            "observers=[]",
            "backend=scripted",
            "backend.kind=scripted",
            "prompts.answer=x.txt",
            "demonstrations=none",
        ),
    ],
)
def test_rescore_refuses_what_it_cannot_apply(setting: str, home: Path, selfloop: Selfloop) -> None:
    assert selfloop("run", "recipe.yaml").code == 0
    said = selfloop("rescore", "recipe", "--set", "decide.belief=0.9", "--set", setting)
    assert said.code == 2 and f"--set {setting}: " in said.err
    assert "detectors, decide, answer.declines, plugins" in said.err, "it says what it can apply"
    assert [path.name for path in (home / "runs").iterdir()] == ["recipe"]


def test_rescore_refuses_a_prompt_that_no_detector_uses(
    home: Path, write: Write, selfloop: Selfloop
) -> None:
    assert selfloop("run", "recipe.yaml").code == 0
    write({"true.txt": "{question} {answer} True or false?", "more.txt": "{known} |"})
    detectors = ("--set", "detectors=[p_true]")
    assert selfloop("rescore", "recipe", *detectors, "--set", "prompts.p_true=true.txt").code == 0
    said = selfloop("rescore", "recipe", "--set", "prompts.p_true=true.txt")
    assert said.code == 2
    assert [path.name for path in (home / "runs").iterdir()] == ["recipe", "recipe-rescored"]


@pytest.mark.parametrize("command", ["ask", "score", "eval"])
@pytest.mark.parametrize(
    "setting",
    ["rounds=2", "ask.questions=2", "ask.sources.0.path=x", "tuner=none", "ask.max_turns=2"],
)
def test_a_command_that_is_given_its_questions_refuses_settings_of_them(
    command: str, setting: str, home: Path, selfloop: Selfloop
) -> None:
    said = selfloop(*COMMANDS[command], "--set", setting)
    assert said.code == 2 and f"--set {setting}: " in said.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("ask", "name=x"),
        ("ask", "observers=[jsonl]"),
        ("score", "critique=plain"),
        ("score", "answer.decline_bias=2"),
        ("multiple choice", "answer.samples=4"),
        ("multiple choice", "detectors=[agreement]"),
    ],
)
def test_other_settings_that_are_not_applied(
    command: str, setting: str, home: Path, selfloop: Selfloop
) -> None:
    said = selfloop(*COMMANDS[command], "--set", setting)
    assert said.code == 2 and f"--set {setting}: " in said.err


# --- prompts


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("answer", "Say something.", "mine.txt lacks {question}, so the model would never see it."),
        ("answer", "", "lacks {question}"),
        ("answer", "{ question } {question!r} {{ question }}", "lacks {question}"),
        (
            "answer",
            "{question} {topic}",
            "mine.txt uses {topic}, but this prompt is given {question}.",
        ),
        ("answer", "{question}\n=== user\nAnswer:\n", "has text before its first line `=== user`"),
        ("revise", "{question} {critique}", "lacks {draft}"),
        ("critique", "{question}", "lacks {draft}"),
    ],
)
def test_a_prompt_has_its_placeholders_and_no_others(
    name: str, text: str, message: str, home: Path, write: Write, selfloop: Selfloop
) -> None:
    write({"mine.txt": text})
    for command in ("check", "run"):
        said = selfloop(command, "recipe.yaml", "--set", f"prompts.{name}=mine.txt")
        assert said.code == 2 and message in said.err
    assert not (home / "runs").exists()


def test_braces_in_what_a_model_wrote_are_no_placeholders(
    home: Path, write: Write, selfloop: Selfloop
) -> None:
    write(
        {"script.json": json.dumps({"": ["{question} {draft}"]}), "mine.txt": "Q: {question}\nA:"}
    )
    backend = (
        "--set",
        "backend={kind: scripted, script: script.json}",
        "--set",
        "prompts.answer=mine.txt",
    )
    said = selfloop(
        "ask", "recipe.yaml", "What is {draft}?", *backend, "--json", "--set", "critique=plain"
    )
    (result,) = json.loads(said.out)
    assert said.code == 0, said.err
    assert (result["question"], result["guess"]) == ("What is {draft}?", "{question} {draft}")


# --- inputs


@pytest.fixture
def stopped(home: Path, write: Write, selfloop: Selfloop) -> Path:
    """A run that has played one of its two rounds, and reads a file of every kind."""
    write(
        {
            "script.json": '{"": ["Paris"]}',
            "mine.txt": "Q: {question}\nA:",
            "labels.jsonl": "",
            "nested/a/b.txt": "x",
        }
    )
    extra = """\
from pathlib import Path
from selfloop import Component, hookimpl
class Reads:
    def __init__(self, *, files: list[Path], home: Path, out: Path):
        self.out = out
        assert all(file.is_file() for file in files) and home.is_dir()
    def verify(self, claims, context):
        from selfloop import Verdict
        self.out.write_text("written")
        return [Verdict("reads", 0.5) for claim in claims]
@hookimpl
def selfloop_detectors():
    return [Component("reads", Reads, writes=frozenset({"out"}))]
"""
    write({"reads.py": extra, "one.txt": "1", "two.txt": "2", "out.txt": "before"})
    recipe = RECIPE.replace("rounds: 2", "rounds: 1").replace(
        "[plugin.py]", "[plugin.py, reads.py]"
    )
    recipe = recipe.replace("backend: moody", "backend: {kind: scripted, script: script.json}")
    recipe += "prompts: {answer: mine.txt}\n"
    recipe = recipe.replace(
        "[agreement]",
        "[agreement, {kind: reads, files: [one.txt, two.txt], home: nested, out: out.txt}]",
    )
    write({"recipe.yaml": recipe})
    assert selfloop("run", "recipe.yaml").code == 0
    stored = home / "runs/recipe/recipe.yaml"
    stored.write_text(stored.read_text().replace("rounds: 1", "rounds: 2"))
    return home


@pytest.mark.parametrize(
    "changed",
    ["asked.txt", "mine.txt", "plugin.py", "reads.py", "script.json", "two.txt", "nested/a/b.txt"],
)
def test_an_input_that_changed_is_refused_as_another_model_is(
    changed: str, stopped: Path, selfloop: Selfloop, query: Query
) -> None:
    path = stopped / changed
    before = path.read_bytes()
    for after in (before + b"\n", None):
        path.unlink() if after is None else path.write_bytes(after)
        said = selfloop("resume", "recipe")
        assert said.code == 12 and "Put the old file back, or start a new run." in said.err
        assert changed.partition("/")[0] in said.err
        assert query(stopped / "runs/recipe", "SELECT count(*) FROM rounds") == [(1,)]
    path.write_bytes(before)
    assert selfloop("resume", "recipe").code == 0
    assert query(stopped / "runs/recipe", "SELECT count(*) FROM rounds") == [(2,)]


def test_a_run_that_is_read_is_the_same_whatever_is_made_of_it(
    home: Path, selfloop: Selfloop
) -> None:
    from selfloop.config.inputs import digest

    run = Path(json.loads(evaluated(selfloop, "--json").out)["run"])
    before = digest(run)
    for command in (("show", run), ("eval", run), ("report", run), ("resume", run)):
        assert selfloop(*command).code == 0
    assert digest(run) == before
    assert selfloop("rescore", run, "--set", "detectors=[sequence_probability]").code == 0
    assert digest(run.with_name(f"{run.name}-rescored")) != before


def test_what_a_component_writes_is_no_input(stopped: Path, selfloop: Selfloop) -> None:
    assert (stopped / "out.txt").read_text() == "written"
    assert selfloop("resume", "recipe").code == 0


def test_a_run_from_before_there_were_hashes_is_resumed(stopped: Path, selfloop: Selfloop) -> None:
    from contextlib import closing

    from selfloop.storage.store import Store

    with closing(Store(stopped / "runs/recipe", write=True)) as store, store._transaction() as db:
        assert "asked.txt" in json.dumps(store.meta()["inputs"])
        db.execute("DELETE FROM meta WHERE key = 'inputs'")
    (stopped / "asked.txt").write_text(ASKED + "Who?\n")
    assert selfloop("resume", "recipe").code == 0


def test_a_rescored_run_goes_on_with_the_questions_it_had(
    stopped: Path, selfloop: Selfloop
) -> None:
    (stopped / "asked.txt").write_text("Who was it?\n")
    assert selfloop("rescore", "recipe").code == 0
    assert selfloop("resume", "recipe-rescored").code == 12


# --- the other rows


def test_ask_gives_one_result_a_question(home: Path, selfloop: Selfloop) -> None:
    asked = [QUESTION, OTHER, f" {QUESTION} "]
    said = selfloop("ask", "recipe.yaml", *asked, "--json")
    found = json.loads(said.out)
    assert said.code == 0 and [one["question"] for one in found] == [QUESTION, OTHER, QUESTION]
    assert found[0] == found[2]
    (single,) = json.loads(selfloop("ask", "recipe.yaml", OTHER, "--json").out)
    assert single["question"] == OTHER
    assert selfloop("ask", "recipe.yaml", OTHER, OTHER).out.count(OTHER) == 2


INTERRUPTED = """\
import os, signal
from selfloop import Component, hookimpl
from selfloop.testing import ScriptedBackend

class Slow(ScriptedBackend):
    def __init__(self):
        super().__init__()
        raise KeyboardInterrupt

def check():
    raise KeyboardInterrupt

@hookimpl
def selfloop_backends():
    return [Component("slow", Slow), Component("slower", ScriptedBackend, check=check)]
"""


@pytest.mark.parametrize("backend", ["slow", "slower"])
def test_ctrl_c_before_there_is_a_run(
    backend: str, home: Path, write: Write, selfloop: Selfloop
) -> None:
    write({"plugin.py": INTERRUPTED})
    said = selfloop("run", "recipe.yaml", "--set", f"backend={backend}")
    assert said.code == 130
    assert "nothing was begun" in said.err and "resume" not in said.err
    assert not list((home / "runs").glob("*"))


@pytest.mark.skipif(
    sys.platform == "win32", reason="there Ctrl-C is no signal that can be sent to one process"
)
def test_ctrl_c_while_the_recipe_is_read(home: Path, write: Write) -> None:
    reading = home / "reading"
    write(
        {
            "plugin.py": "import pathlib, time\n"
            f"pathlib.Path({str(reading)!r}).touch()\ntime.sleep(30)\n"
        }
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "selfloop.cli", "run", "recipe.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not reading.exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "nothing was begun" in err and "resume" not in err


def test_eval_prints_where_it_cannot_store(home: Path, selfloop: Selfloop) -> None:
    run = json.loads(evaluated(selfloop, "--json").out)["run"]
    # a folder of that name takes no file, whoever the user is
    for name in ("eval.json", "eval.parquet"):
        (home / run / name).unlink()
        (home / run / name).mkdir()
    said = selfloop("eval", run)
    assert said.code == 0 and "accuracy 1.00" in said.out and "Decision policies" in said.out
    assert "the results could not be stored" in said.err
    assert json.loads(selfloop("eval", run, "--json").out)["questions"] == 1
