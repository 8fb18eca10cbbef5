"""Several processes that train together learn as one does, and end as the first one ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="pip install 'selfloop[tune]'")

import torch
import transformers as T
from launched import trained
from selfloop_plugins.tuners.lora import checkpoint, launch, tuner
from selfloop_plugins.tuners.lora.gate import Gate
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from selfloop.errors import ModelError, RecipeError, SelfloopError

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 257}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 0}
LIMIT_S = 120  # of one launch; it takes about a tenth of this
SETTLED_S = 30  # by which the others have ended; it takes a second


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a model of random weights, and a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("models") / "small"
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(BPE({"<eos>": 0} | {letter: i for i, letter in enumerate(letters, 1)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    T.PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    T.LlamaForCausalLM(T.LlamaConfig(**SIZES)).save_pretrained(folder)
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def start():
    """Start processes of a launch; what is left of them at the end of the test is killed."""
    port, started = free_port(), []

    def _start(rank, *command):
        env = os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield _start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_two_processes_learn_as_one(model, tmp_path, start):
    """From the beginning and from a checkpoint, and after a training in which one failed."""

    class Killed(Exception):
        pass

    losses, weights, epochs = trained(str(model), tmp_path / "alone")
    assert len(epochs) == 3 and epochs[-1].decline_biases["after the answer"] != 0

    # one process begins a training, which two continue
    def kill(folder, training, epochs, *rest):
        save(folder, training, epochs, *rest)
        raise Killed

    save = checkpoint.save_checkpoint
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save_checkpoint", kill)
        trained(str(model), tmp_path / "cut")

    command = (HERE / "launched.py", model, tmp_path)
    other, first = start(1, *command), start(0, *command)
    ended = [process.communicate(timeout=LIMIT_S) for process in (first, other)]
    assert (first.returncode, other.returncode) == (0, 0), ended
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert "process 1 of 2 failed: ModelError" in seen["reason"] and "nowhere" in seen["reason"]
    steps = len(losses) // 3
    for name, expected in (("whole", losses), ("cut", losses[steps:])):
        assert seen[name] == pytest.approx(expected, rel=1e-4)
        learnt = torch.load(tmp_path / f"{name}.pt")
        for key, value in weights.items():
            assert torch.allclose(learnt[key], value, rtol=1e-3, atol=1e-4), (name, key)
    assert seen["whole"] != losses  # each computed a part: the sums are rounded in another order


FIRST = "import time; from selfloop_plugins.tuners.lora import worker; worker.join(0, 2); "
OTHER = "import sys; from selfloop_plugins.tuners.lora import worker; sys.exit(worker.join(1, 2))"


def is_ready(process):
    """Return whether the other process has said that it is there; the first one prints that."""
    return process.stdout.readline() == "ready\n"


WAITS = (
    "from selfloop_plugins.tuners.lora import launch; launch._launch._wait_for(['ready/1'], 60); "
    "print('ready', flush=True); "
)


@pytest.mark.parametrize(
    ("command", "code"), [("pass", 0), ("sys.exit(5)", 0), ("os.kill(os.getpid(), 9)", 1)]
)
def test_the_others_end_when_the_first_ends(command, code, start):
    first = start(0, "-c", f"import os, sys; {FIRST}{WAITS}{command}")
    other = start(1, "-c", OTHER)
    assert is_ready(first)
    out, err = other.communicate(timeout=SETTLED_S)
    # from python, not from the command line: an error is a traceback here
    assert other.returncode == code and out == ""
    assert bool(err) == bool(code) and ("that plays the run is gone" in err) == bool(code)


def test_ctrl_c_is_for_the_first_process(start):
    first = start(0, "-c", f"{FIRST}{WAITS}time.sleep(60)")
    other = start(1, "-c", OTHER)
    assert is_ready(first)
    other.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        other.wait(1)
    first.send_signal(signal.SIGINT)
    assert other.wait(SETTLED_S) == 0 and first.wait(SETTLED_S) != 0


@pytest.fixture
def alone_of_two(monkeypatch):
    """The first process of a launch whose other one never comes up."""
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(free_port()))):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "COME_UP_S", 1)
    monkeypatch.setattr(launch, "_launch", launch.Launch(0, 2))


def test_a_process_that_does_not_answer_is_named(alone_of_two):
    needed = r"of the 2 processes of this launch, 1 did not answer within 1 s: .*torchrun"
    with pytest.raises(ModelError, match=needed), launch.training(None):
        pass


def test_a_process_that_does_not_number_itself(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=r"one of 2, and each would play a run .*torchrun"):
        launch.refuse_other_process()


def test_a_launch_where_nobody_meets(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(RecipeError, match=r"MASTER_ADDR and MASTER_PORT are not, .*torchrun"):
        launch.Launch(1, 2)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setattr(launch, "COME_UP_S", 1)
    with pytest.raises(SelfloopError, match=r"process 1 cannot meet the others at 127\.0\.0\.1"):
        launch.Launch(1, 2)


JUDGE = """
from selfloop_plugins.tuners.lora import tuner
from selfloop_plugins.tuners.lora.gate import Gate

from selfloop import Component, Verdict, hookimpl

Gate.refusal = ""  # a model of random weights learns nothing that the gate would take
tuner.NEUTRAL_TEXTS, tuner.NEUTRAL_TOKENS = 24, 16


class Known:
    def verify(self, claims, context):
        number = [int(claim.question.text.split()[-1].rstrip("?")) for claim in claims]
        return [Verdict("known", 0.1 if n % 2 else 0.9) for n in number]


@hookimpl
def selfloop_detectors():
    return [Component("known", Known, doc="every second is right")]
"""
RECIPE = """
rounds: 1
plugins: [judge.py]
backend: {{kind: hf, model: {model}, dtype: float32, device: cpu, batch: 16}}
ask: {{questions: 80, sources: [{{kind: file, path: asked.jsonl}}]}}
answer: {{samples: 1, max_tokens: 3}}
detectors: [known]
tuner: {{kind: lora, batch: 8, rank: 2, epochs: 2}}
"""


@pytest.fixture
def home(write, model, monkeypatch):
    # `selfloop resume` in this process loads judge.py too: what it sets is set back
    monkeypatch.setattr(Gate, "refusal", Gate.__dict__["refusal"])
    for name in ("NEUTRAL_TEXTS", "NEUTRAL_TOKENS"):
        monkeypatch.setattr(tuner, name, getattr(tuner, name))
    asked = [
        {"question": f"Who was number {i}?", "answer": f"Marie Curie the {i}th"} for i in range(80)
    ]
    files = {"judge.py": JUDGE, "recipe.yaml": RECIPE.format(model=model)}
    return write(files | {"asked.jsonl": "\n".join(map(json.dumps, asked))})


def epochs_of(run):
    return json.loads((run / "adapters/round-001/gate.json").read_text())["epochs"]


def test_torchrun_plays_one_run_that_trains_in_two_processes(home, selfloop):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command = [*launcher, "--master_port", str(free_port()), "-m", "selfloop", "run", "recipe.yaml"]
    done = subprocess.run(
        command, cwd=home, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in (home / "runs").iterdir()] == ["recipe"]
    assert done.stdout.count("run recipe ") == done.stdout.count("Run saved") == 1, done.stdout
    alone = selfloop("run", "recipe.yaml")
    assert alone.code == 0, alone.text
    two, one = epochs_of(home / "runs/recipe"), epochs_of(home / "runs/recipe-2")
    assert len(two) == len(one) == 2
    for left, right in zip(two, one, strict=True):
        assert [left["loss"], left["held"]] == pytest.approx(
            [right["loss"], right["held"]], rel=1e-3
        )
