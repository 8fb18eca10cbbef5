"""`selfloop plan`: it forecasts what a run takes, and warns of what will go wrong."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import RECIPE, Clock, Selfloop

from selfloop import system
from selfloop.config.recipe import Recipe
from selfloop.forecast import estimate as forecast
from selfloop.forecast import meter, prefixes
from selfloop.forecast.estimate import rates
from selfloop.forecast.meter import Call, Rates, Step
from selfloop.records import Message, Request, Sampling

Write = Callable[[Mapping[str, str]], Path]
SLOW = """\
rounds: 2
backend: {kind: scripted, delay: 0.006}
ask: {questions: 32, sources: [blank_slate], scorers: []}
answer: {samples: 4}
detectors: [agreement]
observers: []
"""


def planned(selfloop: Selfloop, *args: str) -> dict[str, Any]:
    result = selfloop("plan", *args, "--json")
    assert (result.code, result.err) == (0, "")
    planned_run: dict[str, Any] = json.loads(result.out)
    return planned_run


@pytest.mark.extra("stats")
def test_a_plan_is_read_by_people(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE})
    result = selfloop("plan", "r.yaml")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert (result.code, result.err) == (0, "")
    assert lines[:2] == ["r: 1 round of 2 questions", "with scripted (script, base), by scripted"]
    assert lines[2].startswith("measured on 1 round of 2 questions, which took ")
    assert lines[4] == "step round 1 each later in all tokens"
    assert [line.split()[0] for line in lines[6:13]] == [
        "loading",
        "ask",
        "answer",
        "verify",
        "decide",
        "record",
        "in",
    ]
    assert lines[14].startswith("memory ")
    assert "logprobs yes sequence_probability, meaning_probability, pmi" in lines
    assert "attentions no" in lines


@pytest.mark.extra("stats")
def test_nothing_is_left_of_it(write: Write, selfloop: Selfloop) -> None:
    folder = write({"r.yaml": RECIPE})
    selfloop("plan", "r.yaml")
    assert {path.name for path in folder.iterdir()} <= {"r.yaml", "cache"}


@pytest.mark.slow
@pytest.mark.extra("stats")
def test_the_forecast_is_near_what_the_run_takes(
    write: Write, selfloop: Selfloop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script takes as long for each completion as it should; 24 of 32 questions are not run.

    The clock goes on by what the script sleeps, and by nothing else.
    """

    def sleep(seconds: float) -> None:
        clock.now += seconds

    for module in (forecast, meter):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr("selfloop.testing.scripted.time", SimpleNamespace(sleep=sleep))
    # questions that hardly ever repeat: what is asked twice is answered once
    script = {
        r"Answer:\s*$": ["Giza", "Nile", "Oslo", "Peru"],
        "": [f"What is the name of river number {number}?" for number in range(5000)],
    }
    backend = "scripted, script: script.json"
    write({"slow.yaml": SLOW.replace("scripted", backend), "script.json": json.dumps(script)})
    planned_run = planned(selfloop, "slow.yaml", "--seconds", "0")
    assert planned_run["sample"]["questions"] == 8
    start = clock.now
    selfloop("run", "slow.yaml", "--json")
    took = clock.now - start
    assert 0.8 < took / planned_run["seconds"] < 1.25


@pytest.mark.extra("stats")
@pytest.mark.slow
def test_of_more_than_two_rounds_the_second_is_always_played(
    write: Write, selfloop: Selfloop
) -> None:
    write({"slow.yaml": SLOW})
    hasty = planned(selfloop, "slow.yaml", "--seconds", "0", "--set", "rounds=3")
    assert (hasty["sample"]["questions"], hasty["sample"]["rounds"]) == (8, 2)
    assert planned(selfloop, "slow.yaml", "--seconds", "0")["sample"]["rounds"] == 1


@pytest.mark.extra("stats")
@pytest.mark.slow
@pytest.mark.usefixtures("reports")
def test_what_observers_write_is_foretold_at_its_full_size(
    write: Write, selfloop: Selfloop
) -> None:
    """Records and report count as those of the whole run, though only 8 of 96 questions are run."""
    write({"slow.yaml": SLOW.replace("observers: []", "observers: [jsonl, report]")})
    planned_run = planned(selfloop, "slow.yaml", "--seconds", "0", "--set", "rounds=3")
    selfloop("run", "slow.yaml", "--json", "--set", "rounds=3")
    left = sum(file.stat().st_size for file in Path("runs/slow").iterdir())
    assert 0.8 < left / planned_run["disk"] < 1.25
    record = next(step for step in planned_run["steps"] if step["name"] == "record")
    assert 0 < record["first"] < record["seconds"]


@pytest.mark.extra("stats")
def test_a_sample_that_takes_no_time_is_made_larger(write: Write, selfloop: Selfloop) -> None:
    write({"slow.yaml": SLOW})
    fast = planned(selfloop, "slow.yaml", "--set", "backend.delay=0", "--seconds", "60")
    assert (fast["sample"]["questions"], fast["sample"]["rounds"]) == (32, 2)


@pytest.mark.extra("stats")
def test_a_small_run_is_its_own_sample(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE})
    planned_run = planned(selfloop, "r.yaml")
    played = json.loads(selfloop("run", "r.yaml", "--json").out)
    assert planned_run["sample"]["asked"] == sum(item["asked"] for item in played["rounds"])


def test_what_is_wrong_with_a_recipe_is_said_before_anything_is_measured(
    write: Write, selfloop: Selfloop
) -> None:
    write({"r.yaml": RECIPE.replace("questions: 2", "question: 2")})
    result = selfloop("plan", "r.yaml")
    assert (result.code, result.out) == (2, "")
    assert "ask.question: unknown key. Did you mean 'questions'?" in result.err


@pytest.mark.extra("stats")
def test_prompts_that_do_not_fit_are_warned_of(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE.replace("backend: scripted", "backend: {kind: scripted, context: 30}")})
    warnings = planned(selfloop, "r.yaml")["warnings"]
    assert any("over the context of 30" in warning for warning in warnings)


@pytest.mark.extra("stats")
def test_a_recipe_that_asks_nothing_is_warned_of(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE, "script.json": '{"": ["no question"]}'})
    planned_run = planned(
        selfloop, "r.yaml", "--set", "backend={kind: scripted, script: script.json}"
    )
    assert any(
        warning.startswith("not one question of the sample") for warning in planned_run["warnings"]
    )


@pytest.mark.extra("stats")
def test_too_little_memory_and_disk_are_warned_of(
    write: Write, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({"r.yaml": RECIPE})
    monkeypatch.setattr("selfloop.system.free_memory", lambda: 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    result = selfloop("plan", "r.yaml").out
    assert "of memory, and 1.0 kB are free now. Use a smaller model." in result
    assert "of disk, and 1.0 kB are free. Choose another with --runs." in result


TUNER = """\
from selfloop import Component, hookimpl
from selfloop.errors import MissingExtraError

def build():
    raise MissingExtraError("peft", "tune", "The tuner")

@hookimpl
def selfloop_tuners():
    return [Component("mine", build)]
"""


@pytest.mark.extra("stats")
def test_a_tuner_that_cannot_be_built_is_warned_of(write: Write, selfloop: Selfloop) -> None:
    write({"mine.py": TUNER, "r.yaml": f"{RECIPE}plugins: [mine.py]\ntuner: mine\n"})
    planned_run = planned(selfloop, "r.yaml")
    assert any(
        "will not begin: The tuner needs the package peft" in warning
        for warning in planned_run["warnings"]
    )
    assert [step["name"] for step in planned_run["steps"]][-1] == "tune"
    adapters = next(
        item for item in planned_run["capabilities"] if item["capability"] == "adapters"
    )
    assert adapters == {"capability": "adapters", "given": True, "needed_by": ["mine"]}


# --- the reckoning


@pytest.mark.extra("stats")
def test_the_rates_are_found_again() -> None:
    true = Rates(step=0.01, token=0.002, completion=0.03, read=0.0001)

    def call(longest: int, tokens: int, count: int, read: int) -> Call:
        seconds = sum(a * b for a, b in zip(true, (longest, tokens, count, read), strict=True))
        return Call(seconds, 4, read, read // 2, count, tokens, longest)

    calls = [
        call(48, 170, 4, 500),
        call(12, 80, 8, 7000),
        call(30, 40, 2, 20),
        call(9, 300, 56, 4000),
    ]
    calls.append(call(20, 90, 30, 300))
    assert rates([Step(1, "ask", 1.0, calls)]) == pytest.approx(true)
    assert rates([Step(1, "decide", 1.0)]) == (0, 0, 0, 0)


def test_a_step_grows_by_what_is_not_in_common() -> None:
    call = Call(seconds=2.0, texts=4, read=1000, unshared=200, completions=4, tokens=40, longest=10)
    step = Step(1, "ask", seconds=3.0, calls=[call])
    cost = Rates(step=0.1, token=0.01, read=0.001)
    assert step.at(1, cost) == pytest.approx(3.0)
    assert step.at(3, cost) == pytest.approx(3.0 + 2 * 1.0 + 0.01 * 80 + 0.001 * 400)
    assert step.at(3, cost, usual=0.1) == pytest.approx(3.0 + 2 * 0.1 + 0.01 * 80 + 0.001 * 400), (
        "imports are done once"
    )
    assert call.work(1000)[0] == pytest.approx(40_000 / 64), "a full batch goes on for longer"


@pytest.mark.parametrize(
    ("more", "rounds"),
    [
        ({}, 0),
        ({"tuner": "lora"}, 4),
        ({"tuner": {"kind": "lora", "every": 2}}, 3),
        ({"tuner": {"kind": "lora", "every": 9}}, 0),
        ({"tuner": "lora", "answer": {"with": "base"}}, 0),
        ({"tuner": "lora", "answer": {"samples_with": "tuned"}}, 0),
    ],
)
def test_rounds_after_a_tune_have_a_second_model(more: Mapping[str, Any], rounds: int) -> None:
    recipe = Recipe.model_validate(
        {"name": "r", "rounds": 5, "backend": "scripted", "ask": {"sources": ["topics"]}, **more}
    )
    assert forecast._tuned_rounds(recipe) == rounds


def test_a_second_model_reads_the_prompts_and_writes_a_draft_to_each() -> None:
    recipe = Recipe.model_validate(
        {"name": "r", "backend": "scripted", "ask": {"sources": ["topics"]}}
    )
    assert recipe.answer.samples == 8
    call = Call(5.0, texts=4, read=1000, unshared=200, completions=36, tokens=90, longest=10)
    read_alone = Call(1.0, texts=4, read=900, unshared=100)
    more = forecast._second_model(recipe, Step(1, "answer", 6.0, [call, read_alone]))
    assert more == Call(0.0, texts=8, read=2000, unshared=400, completions=4, tokens=10, longest=10)
    cost = Rates(step=0.1, token=0.01, completion=0.5, read=0.001)
    assert cost.seconds(more.work()) == pytest.approx(1.0 + 0.1 + 2.0 + 2.0)


@pytest.mark.parametrize(
    ("texts", "read"),
    [
        ([], (0, 0, 0)),
        (["abc"], (1, 3, 3)),
        (["abc", "abc"], (1, 3, 3)),
        (["shared one", "shared two", "other"], (3, 10 + 3 + 5, 9)),
    ],
)
def test_what_texts_have_in_common_is_read_once(
    texts: Sequence[str], read: tuple[int, ...]
) -> None:
    assert prefixes.reading(texts) == read


def test_a_text_alone_has_as_much_of_its_own_as_others() -> None:
    many, alone = Call(1.0, 8, 900, 160), Call(1.0, 1, 700, 700)
    (step,) = meter.with_typical_own_lengths([Step(1, "ask", 2.0, [many, alone])])
    assert [call.unshared for call in step.calls] == [160, 20]
    assert meter.with_typical_own_lengths([Step(1, "ask", 1.0, [alone])])[0].calls == [alone]


def test_a_call_is_stretched_to_the_size_of_the_run() -> None:
    chat = (Message("system", "Answer."), Message("user", "Question: Who?"))
    asked = [
        Request("Question: Who?", Sampling(max_tokens=9), n=3),
        Request("Question: Where?"),
        Request(chat),
    ]
    stretched = forecast._stretched(asked, 7)
    assert stretched[:3] == [forecast.replace(item, seed=i) for i, item in enumerate(asked)]
    assert len({str(item.prompt) for item in stretched}) == 7
    assert (stretched[3].prompt, stretched[3].n) == ("Question: 1 Who?", 3)
    assert stretched[5].prompt[0] == chat[0]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget its peak")
def test_the_peak_of_memory_is_what_was_resident_since_it_was_forgotten() -> None:
    large = bytearray(b"x" * 200_000_000)
    high = system.peak_memory()
    del large
    system.forget_peak_memory()
    low = system.peak_memory()
    assert high and low and high - low > 150_000_000
