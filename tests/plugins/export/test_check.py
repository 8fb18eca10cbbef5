"""A written file is asked the run's held-out questions, and refused where it answers otherwise.

A scripted client stands for llama.cpp but in the tests of the model lane.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

pytest.importorskip("gguf", reason="pip install 'selfloop[tune]'")
pytest.importorskip("llama_cpp", reason="pip install 'selfloop[llamacpp]'")

import gguf
import numpy as np
from conftest import Selfloop
from selfloop_plugins import models
from selfloop_plugins._shared.held_out import is_held_out
from selfloop_plugins.export import check, merge, targets
from selfloop_plugins.export.check import Check, HeldOut, ModelFiles, Rates, finer_types

from selfloop import Attempt, Completion, History, Outcome, Question
from selfloop.records import Adapter, Round
from selfloop.storage.run_folder import RECIPE
from selfloop.storage.store import Store

Answers = Callable[[ModelFiles, str], str]
SILENT = "I don't know."


def question(text: str) -> Question:
    return Question(text, "test")


def held_out_texts(number: int) -> list[str]:
    """The texts of so many questions that are held out."""
    texts = (f"What is the capital of isle {i}?" for i in count())
    held = (text for text in texts if is_held_out(question(text)))
    return [next(held) for _ in range(number)]


# Every second question is likely right, the others are likely wrong.
TEXTS = held_out_texts(80)
KNOWN = {text: i % 2 == 0 for i, text in enumerate(TEXTS)}


def attempt(text: str) -> Attempt:
    return Attempt(
        question(text),
        draft=Completion(f" Town of {text[-4:-1]}"),
        decision="undecided",
        confidence=0.9 if KNOWN.get(text) else 0.1,
    )


def answer(text: str) -> str:
    return f"Town of {text[-4:-1]}"


def honest(files: ModelFiles, text: str) -> str:
    """Give the known answers, and decline the others: the adapter as the run made it."""
    return f"It is {answer(text)}." if KNOWN[text] else SILENT


def talkative(files: ModelFiles, text: str) -> str:
    """Decline nothing once the adapter is merged."""
    return honest(files, text) if files.adapter else f"It is {answer(text)}."


class Scripted:
    """A client in place of llama.cpp's; it notes its files and what it was asked."""

    def __init__(self) -> None:
        self.answers: Answers = honest
        self.asked: list[tuple[str, ModelFiles, bool]] = []

    @contextmanager
    def __call__(self, files: ModelFiles, *, chat: bool) -> Iterator[check.Ask]:
        assert files.model.is_file() and (files.adapter is None or files.adapter.is_file())

        def ask(text: str) -> str:
            self.asked.append((text, files, chat))
            return self.answers(files, text)

        yield ask


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    scripted = Scripted()
    monkeypatch.setattr(check, "untouched_client", scripted)
    # llama.cpp packs whole models alone
    monkeypatch.setattr(merge, "requantise", lambda source, target, kind: copyfile(source, target))
    return scripted


def write_gguf(path: Path, kind: gguf.GGMLQuantizationType | None, **weights: Any) -> Path:
    """Write a GGUF file: an adapter's, or a model's whose weights are packed in a format."""
    writer = gguf.GGUFWriter(path, "llama")
    if kind is None:
        writer.add_float32("adapter.lora.alpha", 2.0)
    for name, values in weights.items():
        data = values if kind is None else gguf.quants.quantize(values, kind)
        writer.add_tensor(name.replace("_in_", "."), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make_run(
    folder: Path,
    *,
    texts: Sequence[str] = TEXTS,
    packed: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    chat: bool = True,
    recipe: str = "backend: {kind: scripted}\n",
    later: Sequence[str] = (),
) -> Path:
    """A run whose first round asked `texts` and made an adapter."""
    folder.mkdir()
    draw = np.random.default_rng(1)
    weights, down, up = (
        draw.normal(size=size).astype(np.float32) for size in ((6, 64), (2, 64), (6, 2))
    )
    base = write_gguf(folder.parent / "the-base.gguf", packed, q_in_weight=weights)
    place = folder / "adapters" / "round-001"
    place.mkdir(parents=True)
    lora = write_gguf(
        place / "adapter.gguf", None, q_in_weight_in_lora_a=down, q_in_weight_in_lora_b=up
    )
    store = Store(folder, write=True)
    store.save_file(RECIPE, recipe)
    model = {"file": str(base), "sha256": models.sha256(base), "chat": chat, "name": "tiny"}
    store.set_meta(model=model)
    adapter = Adapter("adapters/round-001/adapter.gguf", models.sha256(lora), 1)
    store.save_round(Round(1, tuple(map(attempt, texts)), adapter))
    if later:
        store.save_round(Round(2, tuple(map(attempt, later)), None))
    store.close()
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"cache", "run", "runs", "the-base.gguf"}


# --- files that answer as the run does, and files that do not


def test_a_file_that_answers_as_the_run_does_is_written_with_its_figures(
    run: Path, tmp_path: Path, client: Scripted, selfloop: Selfloop
) -> None:
    done = selfloop("export", run, "--to", "gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert done.out.splitlines()[1:] == [
        "Measured in llama-cpp-python alone, on 80 held-out questions, asked bare in a user's "
        "turn.",
        "  right answers still given: 90% (base and adapter: 90%)",
        "  wrong answers declined: 90% (base and adapter: 90%)",
        "  right answers declined: 10% (base and adapter: 10%)",
    ]
    assert left(tmp_path) == {"run-gguf.gguf", "run-gguf.gguf.check.json"}
    figures = json.loads((tmp_path / "run-gguf.gguf.check.json").read_text())
    assert figures["sha256"] == models.sha256(tmp_path / "run-gguf.gguf")
    assert figures["questions"] == 80 and figures["refusal"] == ""
    assert figures["written"] == pytest.approx({"kept": 0.9, "declined": 0.9, "refused": 0.1})
    # each model was asked all of the bare questions, in a user's turn
    (written, reference) = dict.fromkeys(files for _, files, _ in client.asked)
    assert written.adapter is None and reference.model.name == "the-base.gguf"
    assert reference.adapter == run / "adapters/round-001/adapter.gguf"
    for files in (written, reference):
        asked = [(text, chat) for text, other, chat in client.asked if other == files]
        assert sorted(asked) == sorted((text, True) for text in TEXTS)


@pytest.mark.parametrize("to", ["gguf", "ollama"])
def test_a_file_that_declines_too_little_is_refused(
    to: str, run: Path, tmp_path: Path, client: Scripted, selfloop: Selfloop
) -> None:
    client.answers = talkative
    done = selfloop("export", run, "--to", to, "--type", "q4_0")
    assert (done.code, done.out) == (3, "")
    assert "wrong answers declined 0%, not 90%" in done.err
    assert "right answers declined 0%, not 10%" in done.err
    assert "Give --type q6_k, q8_0 or bf16 (each keeps more than the one before)" in done.err
    assert "or keep the adapter apart (--to adapter)" in done.err
    assert "with --force" in done.err and left(tmp_path) == set()


def test_a_refused_file_leaves_an_earlier_one_as_it_was(
    run: Path, tmp_path: Path, client: Scripted, selfloop: Selfloop
) -> None:
    words = ("export", run, "--to", "gguf", "--out", tmp_path / "out.gguf")
    assert selfloop(*words).code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("out.gguf*")}
    client.answers = talkative
    assert selfloop(*words, "--type", "q4_0").code == 3
    assert {path.name: path.read_bytes() for path in tmp_path.glob("out.gguf*")} == before


def test_with_force_it_is_written_and_the_fault_is_told(
    run: Path, tmp_path: Path, client: Scripted, selfloop: Selfloop, caplog: Any
) -> None:
    client.answers = talkative
    done = selfloop("export", run, "--to", "ollama", "--type", "q4_0", "--force")
    assert done.code == 0 and "wrong answers declined: 0% (base and adapter: 90%)" in done.out
    assert "answers otherwise than base and adapter" in caplog.text
    text = (tmp_path / "run-ollama" / "README.md").read_text()
    assert "| wrong answers declined | 0.000 | 0.900 |" in text
    assert "written with `--force`" in text
    told = selfloop("export", run, "--to", "gguf", "--force", "--json")
    assert "declined 0%, not 90%" in json.loads(told.out)["check"]["refusal"]


def test_no_finer_type_is_advised_than_there_is(
    run: Path, client: Scripted, selfloop: Selfloop
) -> None:
    client.answers = talkative
    done = selfloop("export", run, "--to", "gguf", "--type", "bf16")
    assert done.code == 3 and "Keep the adapter apart" in done.err and "--type" not in done.err
    done = selfloop("export", run, "--to", "gguf", "--type", "q8_0")
    assert done.code == 3 and "Give --type bf16, or keep the adapter apart" in done.err


@pytest.mark.parametrize(
    ("types", "finer"),
    [
        ({"q4_0", "q6_k"}, ("q6_k", "q8_0", "bf16")),
        ({"q5_k_m"}, ("q6_k", "q8_0", "bf16")),
        ({"iq4_nl"}, ("q6_k", "q8_0", "bf16")),
        ({"q6_k", "f32"}, ("q8_0", "bf16")),
        ({"q8_0"}, ("bf16",)),
        ({"f16"}, ()),
        ({"bf16"}, ()),
    ],
)
def test_types_that_keep_more(types: set[str], finer: tuple[str, ...]) -> None:
    assert finer_types(frozenset(types)) == finer


# --- base and adapter, kept apart


def test_the_adapter_of_a_packed_base_is_kept_apart_for_ollama(
    tmp_path: Path, client: Scripted, selfloop: Selfloop
) -> None:
    run = make_run(tmp_path / "run", packed=gguf.GGMLQuantizationType.Q4_0)
    done = selfloop("export", run, "--to", "ollama")
    assert done.code == 0, done.err
    out = tmp_path / "run-ollama"
    assert left(out) == {"Modelfile", "README.md", "base.gguf", "adapter.gguf"}
    assert (out / "base.gguf").read_bytes() == (tmp_path / "the-base.gguf").read_bytes()
    lora = run / "adapters/round-001/adapter.gguf"
    assert (out / "adapter.gguf").read_bytes() == lora.read_bytes()
    lines = (out / "Modelfile").read_text().splitlines()
    assert lines[1:3] == ["FROM ./base.gguf", "ADAPTER ./adapter.gguf"]
    # the two are the reference themselves, and are asked once
    (files,) = {files for _, files, _ in client.asked}
    assert (files.model.name, files.adapter and files.adapter.name) == ("base.gguf", "adapter.gguf")
    assert "  wrong answers declined: 90%\n" in done.out
    assert "llama-server -m base.gguf --lora adapter.gguf" in done.out
    assert "up to version 0.34.0" in done.out and "--type q8_0" in done.out
    text = (out / "README.md").read_text()
    assert "A GGUF file and a LoRA adapter beside it" in text and "up to version 0.34.0" in text
    assert "| wrong answers declined | 0.900 |" in text


def test_a_type_means_merged(tmp_path: Path, client: Scripted, selfloop: Selfloop) -> None:
    run = make_run(tmp_path / "run", packed=gguf.GGMLQuantizationType.Q4_0)
    assert selfloop("export", run, "--to", "ollama", "--type", "q8_0").code == 0
    assert left(tmp_path / "run-ollama") == {"Modelfile", "README.md", "model.gguf"}
    assert "FROM ./model.gguf\n" in (tmp_path / "run-ollama" / "Modelfile").read_text()


def test_another_scale_is_merged_for_ollama_adds_an_adapter_once(
    tmp_path: Path, client: Scripted, selfloop: Selfloop
) -> None:
    run = make_run(tmp_path / "run", packed=gguf.GGMLQuantizationType.Q4_0)
    store = Store(run, write=True)
    (ended,) = store.rounds()
    assert ended.adapter is not None
    halved = Adapter(ended.adapter.path, ended.adapter.sha256, 2, scale=0.5)
    store.save_round(Round(2, (), halved))
    store.close()
    assert selfloop("export", run, "--to", "ollama").code == 0
    assert (tmp_path / "run-ollama" / "model.gguf").is_file()
    assert {files.scale for _, files, _ in client.asked if files.adapter} == {0.5}


def test_an_adapter_is_measured_beside_its_base(
    run: Path, tmp_path: Path, client: Scripted, selfloop: Selfloop
) -> None:
    done = selfloop("export", run, "--to", "adapter", "--out", tmp_path / "alone", "--json")
    figures = json.loads(done.out)["check"]
    assert figures["reference"] is None and figures["written"]["declined"] == pytest.approx(0.9)
    (files,) = {files for _, files, _ in client.asked}
    assert files.model.name == "the-base.gguf"
    assert files.adapter and files.adapter.name == "adapter.gguf" and "alone" in str(files.adapter)
    assert "| wrong answers declined | 0.900 |" in (tmp_path / "alone" / "README.md").read_text()


def test_an_adapter_whose_base_is_gone_is_written_unmeasured(
    run: Path, tmp_path: Path, client: Scripted, selfloop: Selfloop
) -> None:
    (tmp_path / "the-base.gguf").unlink()
    done = selfloop("export", run, "--to", "adapter", "--out", tmp_path / "alone")
    assert done.code == 0 and "Not measured: the model of this run" in done.out
    assert "is gone" in done.out and client.asked == []
    assert "Not measured: `the model of this run" in (tmp_path / "alone/README.md").read_text()


def test_a_folder_of_transformers_is_not_measured_and_says_so(
    run: Path,
    tmp_path: Path,
    client: Scripted,
    selfloop: Selfloop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(targets, "merge_hf", lambda model, adapter, out: None)
    done = selfloop("export", run, "--to", "hf")
    assert "Not measured: a folder of transformers cannot be asked" in done.out
    text = (tmp_path / "run-hf" / "README.md").read_text()
    assert "Not measured: `a folder of transformers cannot be asked" in text
    assert client.asked == []


# --- which questions


def test_few_questions_refuse_nothing(tmp_path: Path, client: Scripted, selfloop: Selfloop) -> None:
    run = make_run(tmp_path / "run", texts=TEXTS[:19])
    client.answers = talkative
    done = selfloop("export", run, "--to", "gguf")
    assert done.code == 0 and "on 19 held-out questions" in done.out
    assert "So few say little." in done.out
    done = selfloop("export", make_run(tmp_path / "twenty", texts=TEXTS[:20]), "--to", "gguf")
    assert done.code == 3 and "of 20 held-out questions" in done.err


def test_a_run_that_held_out_nothing_is_not_measured(
    tmp_path: Path, client: Scripted, selfloop: Selfloop
) -> None:
    texts = {f"What is the capital of isle {i}?" for i in range(9)}
    run = make_run(tmp_path / "run", texts=sorted(texts - set(TEXTS)))
    done = selfloop("export", run, "--to", "gguf")
    assert done.code == 0 and "Not measured: the run held out no question." in done.out
    assert client.asked == [] and left(tmp_path) == {"run-gguf.gguf"}


def test_at_most_so_many_questions_are_asked(
    run: Path, tmp_path: Path, client: Scripted, selfloop: Selfloop
) -> None:
    out = tmp_path / "out.gguf"
    assert selfloop("export", run, "--to", "gguf", "--out", out, "--questions", "30").code == 0
    assert len(client.asked) == 60 and len({text for text, _, _ in client.asked}) == 30
    # the figures of an earlier file do not stay beside one that was not measured
    done = selfloop("export", run, "--to", "gguf", "--out", out, "--questions", "0")
    assert done.code == 0 and "Not measured: no question was to be asked." in done.out
    assert len(client.asked) == 60 and left(tmp_path) == {"out.gguf"}


def test_later_rounds_of_the_run_are_not_asked(
    tmp_path: Path, client: Scripted, selfloop: Selfloop
) -> None:
    run = make_run(tmp_path / "run", texts=TEXTS[:30], later=TEXTS[30:])
    assert selfloop("export", run, "--to", "gguf").code == 0
    assert {text for text, _, _ in client.asked} == set(TEXTS[:30])


def test_the_gates_half_is_asked_first_and_nothing_that_is_too_long() -> None:
    texts = [*TEXTS[:5], f"{'Who' * 200} {TEXTS[5]}"]
    outcomes = tuple(Outcome(question(text), "undecided", "Town", 0.5, 1) for text in texts)
    asked = check.held_out_questions(History(1, outcomes), 4)
    assert [one.question for one in asked] == [TEXTS[0], TEXTS[2], TEXTS[4], TEXTS[1]]


def test_the_recipes_own_way_of_declining_counts(
    tmp_path: Path, client: Scripted, selfloop: Selfloop
) -> None:
    recipe = "backend: {kind: scripted}\nanswer: {declines: ['no comment']}\n"
    run = make_run(tmp_path / "run", recipe=recipe)
    client.answers = lambda files, text: "No comment!"
    done = selfloop("export", run, "--to", "gguf")
    assert "wrong answers declined: 100% (base and adapter: 100%)" in done.out


# --- the figures


ASKED = [HeldOut("Who?", "Ann", 0.75), HeldOut("Where?", "Rome", 0.5), HeldOut("When?", "1999", 0)]


def test_a_reply_in_a_chat_holds_the_answer_and_a_base_gives_the_same() -> None:
    replies = ["It was Ann.", "I don't know", "In 1066"]
    expected = Rates(kept=0.75 / 1.25, declined=0.5 / 1.75, refused=0.5 / 1.25)
    assert check.rates(ASKED, replies, chat=True) == expected
    assert check.rates(ASKED, replies, chat=False).kept == 0
    assert check.rates(ASKED, ["ann", "Paris", ""], chat=False).kept == 0.75 / 1.25


def checked(declined: float, *, right: float = 40, kept: float = 0.5) -> Check:
    return Check(80, right, True, Rates(kept, declined, 0.1), Rates(0.5, 0.5, 0.1))


@pytest.mark.parametrize(
    ("declined", "refused"), [(0.45, False), (0.55, False), (0.449, True), (0.551, True)]
)
def test_a_rate_may_be_off_by_the_tolerance_either_way(declined: float, refused: bool) -> None:
    assert bool(checked(declined).refusal) is refused


def test_one_answer_refuses_nothing_where_few_are_right() -> None:
    """Of five right answers one is .2 of the rate."""
    assert checked(0.5, right=5, kept=0.3).refusal == ""
    assert "still given 29%, not 50%" in checked(0.5, right=5, kept=0.29).refusal


# --- llama.cpp itself


def test_a_file_that_llama_cpp_cannot_run_is_refused(
    run: Path, tmp_path: Path, selfloop: Selfloop
) -> None:
    done = selfloop("export", run, "--to", "gguf")  # it has no vocabulary
    assert done.code == 3 and "llama-cpp-python cannot run" in done.err
    assert "--questions 0" in done.err and left(tmp_path) == set()


@pytest.mark.slow
def test_measuring_needs_no_torch() -> None:
    program = "import sys, selfloop_plugins.export.targets; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.model
def test_the_client_asks_in_the_form_of_the_template_with_the_adapter_beside(
    tmp_path: Path,
) -> None:
    """The two forms have two answers, and the adapter counts with its scale."""
    T = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    from selfloop_plugins._torch import adapter as adapters
    from selfloop_plugins._torch import checkpoint
    from tiny_models import saved

    base = models.locate("smollm2-135m-instruct")
    folder = tmp_path / "lora"
    model = T.AutoModelForCausalLM.from_pretrained(checkpoint.locate(str(base)).place)
    adapters.write_gguf(folder, saved(folder, model, size=0.2))
    lora = folder / "adapter.gguf"
    replies = {}
    for name, files, chat in (
        ("base", ModelFiles(base), False),
        ("chat", ModelFiles(base), True),
        ("none", ModelFiles(base, lora, 0.0), False),
        ("tuned", ModelFiles(base, lora, 1.0), False),
    ):
        with check.untouched_client(files, chat=chat) as ask:
            replies[name] = ask("What is the chemical symbol for gold?")
    assert "Au" in replies["base"] and "\n" not in replies["base"], replies
    assert "Au" in replies["chat"] and replies["chat"] != replies["base"], replies
    assert replies["none"] == replies["base"] != replies["tuned"], replies
