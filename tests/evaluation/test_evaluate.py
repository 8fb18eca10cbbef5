"""Evaluation: figures worked out by hand on invented runs, and `selfloop eval` as printed."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import Selfloop

from selfloop import data
from selfloop.config.prompts import Prompts
from selfloop.errors import MissingExtraError, RecipeError, RequestError
from selfloop.evaluation import multiple_choice
from selfloop.evaluation.evaluate import Report, evaluate, policies
from selfloop.records import Attempt, Completion, Continuation, Failure, Question, Round, Verdict
from selfloop.testing import ScriptedBackend

Write = Callable[[Mapping[str, str]], Path]


def attempt(
    answer: str, gold: str, decision: str, confidence: float | None, **verdicts: float | None
) -> Attempt:
    confidences = tuple(Verdict(name, value) for name, value in verdicts.items())
    question = Question(f"{answer} or {gold}?", "test", gold=(gold,) if gold else ())
    return Attempt(
        question,
        draft=Completion(answer),
        verdicts=confidences,
        decision=decision,
        confidence=confidence,
    )  # type: ignore[arg-type]


def values(metrics: Mapping[str, tuple[float, float, float]]) -> dict[str, float]:
    return {name: figures[0] for name, figures in metrics.items()}


@pytest.fixture
def report() -> Report:
    attempts = (
        attempt("ant", "ant", "belief", 0.9, sure=0.9, rare=None),
        attempt("b", "b", "undecided", 0.5, sure=0.5, rare=None),
        attempt("c", "x", "belief", 0.7, sure=0.7, rare=0.3),
        attempt("I don't know", "d", "declined", None, sure=0.8),
        attempt("e", "", "belief", 1.0, sure=1.0),
        Attempt(
            Question("Failed?", "test", gold=("f",)),
            decision="failed",
            failures=(Failure("answer", "b", "E", "m"),),
        ),
        Attempt(Question("Dropped?", "test", gold=("f",)), decision="dropped"),
    )
    return evaluate([Round(1, attempts[:3]), Round(2, attempts[3:])])


def test_what_counts(report: Report) -> None:
    assert (report.questions, report.failed, report.without_gold, report.silent) == (4, 1, 1, 0.25)
    assert [(item.answer, item.right) for item in report.answers] == [
        ("ant", True),
        ("b", True),
        ("c", False),
        ("I don't know", False),
    ]


def test_accuracy_and_detectors_by_hand(report: Report) -> None:
    assert report.accuracy["chosen"].value == report.accuracy["draft"].value == 0.5
    assert 0 <= report.accuracy["chosen"].low < 0.5 < report.accuracy["chosen"].high <= 1
    # it counts as 0: the order is right, wrong, right, wrong
    assert report.confidence.abstains == 0.25
    assert values(report.confidence.metrics) == pytest.approx(
        {
            "auroc": 3 / 4,
            "aurc": (0 + 1 / 2 + 1 / 3 + 2 / 4) / 4,
            "ece": (0.1 + 0.5 + 0.7 + 0) / 4,
            "brier": (0.01 + 0.25 + 0.49 + 0) / 4,
        }
    )
    assert report.detectors["sure"].abstains == 0
    assert report.detectors["sure"].metrics["auroc"].value == pytest.approx(2 / 4)
    assert report.detectors["rare"].abstains == 0.75
    assert report.confidence.risk_coverage == {
        "threshold": [0.9, 0.7, 0.5, 0.0],
        "coverage": [0.25, 0.5, 0.75, 1.0],
        "risk": pytest.approx([0, 1 / 2, 1 / 3, 2 / 4]),
    }
    assert report.confidence.reliability["count"] == [1, 0, 0, 0, 0, 1, 0, 1, 0, 1]


def test_decisions_and_trivial_policies_by_hand(report: Report) -> None:
    run, always, never, random = (values(report.policies[name]) for name in report.policies)
    assert (run["correct"], run["wrong"], run["declined"], run["precision"]) == (
        0.25,
        0.25,
        0.5,
        0.5,
    )
    assert (run["over_refusal"], run["prudence"], run["penalised_0.75"]) == (
        0.5,
        0.5,
        0.25 - 0.25 * 3,
    )
    # the model's own "I don't know" is no answer, also where everything is answered
    assert (always["correct"], always["wrong"], always["declined"]) == (0.5, 0.25, 0.25)
    assert (never["declined"], never["over_refusal"], never["prudence"]) == (1, 1, 1)
    assert math.isnan(never["precision"])
    # two of the three answers, blindly: two thirds of what answering all would bring
    assert (random["correct"], random["wrong"], random["declined"]) == pytest.approx(
        (2 / 6, 1 / 6, 0.5)
    )
    assert random["precision"] == pytest.approx(2 / 3)
    assert random["over_refusal"] == pytest.approx(1 / 3)


def test_random_is_the_mean_over_random_choices() -> None:
    rng = np.random.default_rng(0)
    right, silent = rng.random(40) < 0.4, rng.random(40) < 0.2
    beliefs = ~silent & (rng.random(40) < 0.5)
    figures = values(policies(right, silent, beliefs)["random"])
    confidences, drawn = np.flatnonzero(~silent), []
    for _ in range(2000):
        chosen = np.zeros(40, bool)
        chosen[rng.choice(confidences, beliefs.sum(), replace=False)] = True
        drawn.append(values(policies_of(right, chosen)))
    for name in (
        "correct",
        "wrong",
        "declined",
        "precision",
        "over_refusal",
        "prudence",
        "honesty",
        "penalised_0.9",
    ):
        assert figures[name] == pytest.approx(np.mean([item[name] for item in drawn]), abs=0.05), (
            name
        )


def policies_of(right: np.ndarray, chosen: np.ndarray) -> dict[str, tuple[float, float, float]]:
    from selfloop.evaluation import metrics

    return {
        n: (float(m(np.ones(len(right)))), 0, 0)
        for n, m in metrics.decisions(right, ~chosen).items()
    }


def test_a_revision_is_judged_by_the_verdicts_on_it() -> None:
    question = Question("Q?", "test", gold=("new",))
    verdicts = (Verdict("v", 0.2), Verdict("v", 0.8, candidate="revision"), Verdict("w", 0.4))
    revised = Attempt(
        question,
        draft=Completion("old"),
        revision=Completion("new"),
        chosen="revision",
        verdicts=verdicts,
        decision="belief",
        confidence=0.8,
    )
    figures = evaluate([Round(1, (revised,))])
    assert (figures.accuracy["draft"].value, figures.accuracy["chosen"].value) == (0, 1)
    assert figures.answers[0].verdicts == {"v": 0.8}


def test_what_cannot_be_told_is_none_in_json() -> None:
    figures = evaluate([Round(1, (attempt("ant", "ant", "undecided", None, v=None),))])
    plain = figures.plain()
    assert plain["confidence"]["metrics"]["auroc"] == {"value": None, "low": None, "high": None}
    assert plain["detectors"]["v"] == {
        "abstains": 1.0,
        "metrics": {
            key: {"value": None, "low": None, "high": None}
            for key in ("auroc", "aurc", "ece", "brier")
        },
        "risk_coverage": {"threshold": [], "coverage": [], "risk": []},
        "reliability": {"confidence": [None] * 10, "right": [None] * 10, "count": [0] * 10},
    }
    json.dumps(plain, allow_nan=False)
    assert evaluate([]).plain()["questions"] == 0


# --- the command


RECIPE = """\
backend: {kind: scripted, script: script.json}
ask: {sources: [blank_slate]}
answer: {samples: 4}
rounds: 3
critique: none
detectors: [agreement]
"""
SCRIPT = {
    r"Egypt\?\nAnswer:\s*$": ["Cairo"],
    r"legs\?\nAnswer:\s*$": ["eight legs"],
    "": ["I don't know"],
}
DATA = [
    {"question": "What is the capital of Egypt?", "answers": ["Cairo", "Al-Qāhira"]},
    {"question": "How many legs?", "answer_regex": r"\b(8|eight)\b"},
    {"question": "What is it?", "answers": ["I don't know"]},
    {"question": "Who knows?", "answer_regex": "know"},
]


@pytest.fixture
def folder(write: Write) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in DATA)
    return write({"r.yaml": RECIPE, "script.json": json.dumps(SCRIPT), "data.jsonl": lines})


@pytest.mark.extra("parquet")
def test_eval_of_a_recipe(folder: Path, selfloop: Selfloop) -> None:
    result = selfloop("eval", "r.yaml", "--data", "data.jsonl")
    assert result.code == 0
    assert result.err.endswith(
        "Columns: question (question), answers (gold answers), answer_regex (gold pattern)\n"
    )
    printed = [" ".join(line.split()) for line in result.out.splitlines()]
    # a gold answer that declines counts as none
    start = printed.index("scripted: 3 questions, 1 without gold answer, not counted")
    assert printed[start + 1].startswith("accuracy 0.67 [") and printed[start + 1].endswith(
        '"I don\'t know" 33%'
    )
    assert (
        printed[start + 2]
        == "An answer is right if it is the same as a gold answer by the house rule (--match exact)"
    )
    assert "AUROC AURC ECE Brier abstains" in printed
    assert "run always answer always decline random" in printed
    assert any(line.startswith("precision 1.00 [1.00, 1.00] 1.00 - 1.00") for line in printed)
    run = folder / "runs/eval-data"
    assert (
        printed[-1] == "All intervals, and data for plots: runs/eval-data/eval.json, "
        "runs/eval-data/eval.parquet"
    )
    figures = json.loads((run / "eval.json").read_text())
    assert (figures["questions"], figures["match"]) == (3, "exact")
    table = data.rows(run / "eval.parquet")
    assert [(row["question"], row["right"], row["decision"]) for row in table] == [
        ("What is the capital of Egypt?", True, "belief"),
        ("How many legs?", True, "belief"),
        ("Who knows?", False, "declined"),
    ]
    assert set(table[0]) == {
        "question",
        "answer",
        "right",
        "decision",
        "confidence",
        "detector_agreement",
    }


def test_eval_json_is_json_alone_and_a_finished_run_gives_the_same(
    folder: Path, selfloop: Selfloop
) -> None:
    result = selfloop(
        "eval", "r.yaml", "--data", "data.jsonl", "--limit", 2, "--json", "--set", "name=mine"
    )
    figures = json.loads(result.out)
    assert (result.code, figures["run"], figures["questions"], figures["data"]["rows"]) == (
        0,
        "runs/mine",
        2,
        4,
    )
    assert set(figures["policies"]) == {"run", "always answer", "always decline", "random"}
    assert set(figures["policies"]["run"]["correct"]) == {"value", "low", "high"}
    assert selfloop("resume", "mine").code == 0
    for run in ("mine", "runs/mine"):
        assert json.loads(selfloop("eval", run, "--json").out) == figures


def test_eval_of_a_model_needs_no_recipe(folder: Path, selfloop: Selfloop) -> None:
    result = selfloop(
        "eval", "whatever", "--data", "data.jsonl", "--set", "backend=scripted", "--json"
    )
    assert result.code == 0, result.err
    assert json.loads(result.out)["questions"] == 3
    missing = selfloop("eval", "no.gguf", "--data", "data.jsonl")
    assert missing.code == 3
    assert "no such file: no.gguf" in missing.err


def test_what_eval_sets_holds_against_the_recipe(folder: Path, selfloop: Selfloop) -> None:
    assert "rounds: 3\n" in (folder / "r.yaml").read_text()
    assert selfloop("eval", "r.yaml", "--data", "data.jsonl").code == 0
    assert selfloop("check", "runs/eval-data/recipe.yaml").out.endswith(
        "1 round, 4 questions at most.\n"
    )


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_eval_of_a_data_sets_own_form(
    suffix: str, folder: Path, selfloop: Selfloop, write: Write
) -> None:
    text = {
        "csv": 'question,answer\nWhat is the capital of Egypt?,"[""Cairo""]"\n',
        "json": '[{"question": "What is the capital of Egypt?", "answer": ["Cairo"]}]',
        "jsonl": '{"question": "What is the capital of Egypt?", "answer": ["Cairo"]}\n',
    }[suffix]
    write({f"nq open.{suffix}": text})
    figures = json.loads(selfloop("eval", "r.yaml", "--data", f"nq open.{suffix}", "--json").out)
    assert (figures["run"], figures["accuracy"]["chosen"]["value"]) == ("runs/eval-nq-open", 1)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["r.yaml", "--data", "no.jsonl"], 2, "cannot read no.jsonl: No such file or directory."),
        (["r.yaml", "--data", "none.jsonl"], 2, "1 without a gold answer (line 1)"),
        (["r.yaml", "--data", "bare.jsonl"], 2, "there are no gold answers in it, only question."),
        (
            ["r.yaml", "--data", "bad.jsonl"],
            2,
            "bad.jsonl, line 1: answer_regex is no regular expression",
        ),
        (
            ["r.yaml", "--data", "r.yaml"],
            2,
            "files of the kind .yaml are not read. Give text (.txt, .md), JSONL",
        ),
        (["r.yaml", "--question-column", "q"], 2, "so they need --data"),
        (["r.yaml", "--data", "hf:popqs"], 2, "no data set named 'popqs'. Did you mean 'popqa'?"),
        (["r.yaml", "--data", "hf:popqa"], 2, "pip install 'selfloop[datasets]'"),
        (["no.yaml", "--data", "data.jsonl"], 2, "cannot read the recipe no.yaml"),
        (["r.yaml"], 2, "no run r.yaml. To measure a recipe or a model, give --data FILE"),
        (["r.yaml", "--limit", "3"], 2, "so they need --data"),
        (["r.yaml", "--data", "data.jsonl", "--limit", "0"], 2, "Invalid value for '--limit'"),
    ],
)
def test_mistakes(
    args: list[str],
    code: int,
    message: str,
    folder: Path,
    write: Write,
    selfloop: Selfloop,
    monkeypatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    write(
        {
            "none.jsonl": '{"question": "Q?", "answers": []}\n',
            "bare.jsonl": '{"question": "Q?"}\n',
            "bad.jsonl": '{"question": "Q?", "answer_regex": "("}\n',
        }
    )
    result = selfloop("eval", *args)
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_a_run_without_gold_answers(folder: Path, selfloop: Selfloop) -> None:
    assert selfloop("run", "r.yaml", "--set", "backend=scripted", "--set", "name=own").code == 0
    result = selfloop("eval", "own")
    assert result.code == 2
    assert "has a gold answer" in result.err


def test_without_pyarrow_there_is_json_and_a_hint(
    folder: Path, selfloop: Selfloop, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = selfloop("eval", "r.yaml", "--data", "data.jsonl")
    assert result.code == 0
    assert result.out.rstrip().endswith("Do: pip install 'selfloop[parquet]'")
    assert not (folder / "runs/eval-data/eval.parquet").exists()
    (folder / "x.parquet").write_bytes(b"PAR1")
    assert (folder / "runs/eval-data/eval.json").exists()
    with pytest.raises(MissingExtraError, match="pyarrow"):
        data.rows(folder / "x.parquet")


# --- multiple choice


TRUTH = {
    "question": "What is the capital of Egypt?",
    "mc1_targets": {"choices": ["Cairo", "Luxor"], "labels": [1, 0]},
    "mc2_targets": {"choices": ["Cairo", "Luxor", "It is Cairo"], "labels": [1, 0, 1]},
}


class Reader(ScriptedBackend):
    """Gives each text the log-probability that the test says."""

    def __init__(self, logs: Mapping[str, float | None]) -> None:
        super().__init__()
        self.logs = logs

    def loglikelihood(self, pairs):
        assert all(isinstance(p.prompt, str) and p.prompt.endswith("Answer:") for p in pairs)
        assert all(isinstance(p, Continuation) and str(p.text).startswith(" ") for p in pairs)
        figures = [self.logs[str(p.text)[1:]] for p in pairs]
        return [RequestError("too long") if log is None else (log / 2, log / 2) for log in figures]


def prompt(name: str, **values: str):
    return Prompts().render(name, chat=False, **values)


def test_multiple_choice_by_hand() -> None:
    logs = {
        "Cairo": math.log(0.2),
        "Luxor": math.log(0.3),
        "It is Cairo": math.log(0.4),
        "Oslo": math.log(0.6),
    }
    norway = {
        "question": "What is the capital of Norway?",
        "mc1_targets": {"choices": ["Luxor", "Oslo"], "labels": [0, 1]},
        "mc2_targets": {"choices": ["Luxor", "Oslo"], "labels": [0, 1]},
    }
    items = multiple_choice.items([TRUTH, norway])
    figures = multiple_choice.score(items, Reader(logs), prompt)
    assert (figures.questions, figures.failed, figures.mc1.value) == (2, 0, 0.5)
    assert figures.mc2.value == pytest.approx((0.6 / 0.9 + 0.6 / 0.9) / 2)
    figures = multiple_choice.score(items, Reader(logs | {"Cairo": None}), prompt)
    assert (figures.questions, figures.failed, figures.mc1.value) == (1, 1, 1)


@pytest.mark.parametrize(
    "wrong",
    [{"question": 1}, {"mc1_targets": {"choices": ["a"], "labels": [0]}}, {"mc2_targets": 0}],
)
def test_rows_that_are_no_multiple_choice(wrong: dict) -> None:
    with pytest.raises(RecipeError, match="row 2: no TruthfulQA multiple choice: "):
        multiple_choice.items([TRUTH, TRUTH | wrong])


def test_eval_of_multiple_choice(folder: Path, write: Write, selfloop: Selfloop) -> None:
    write(
        {
            "t.jsonl": json.dumps(TRUTH)
            + "\n"
            + json.dumps(TRUTH | {"question": "And of Peru?"})
            + "\n"
        }
    )
    result = selfloop("eval", "r.yaml", "--data", "t.jsonl")
    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in result.out.splitlines()] == ["scripted:", "MC1", "MC2"]
    figures = json.loads(
        selfloop("eval", "r.yaml", "--data", "t.jsonl", "--limit", 1, "--json").out
    )
    assert (figures["model"], figures["questions"]) == ("scripted", 1)
    assert 0 < figures["mc2"]["value"] < 1
    assert not (folder / "runs").exists()
