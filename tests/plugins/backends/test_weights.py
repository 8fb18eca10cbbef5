"""Working copies of a model in another format: made once, whole, measured, only if they fit."""

import json
import shutil
from collections import namedtuple

import pytest

pytest.importorskip("llama_cpp", reason="pip install 'selfloop[llamacpp]'")

from selfloop_plugins import models
from selfloop_plugins.backends.llama_cpp import weights
from selfloop_plugins.backends.llama_cpp.weights import Fidelity, converted_weights, fastest_format

from selfloop.errors import ModelError

MODEL = "smollm2-135m-instruct"


@pytest.mark.parametrize(
    ("speeds", "picked"),
    [
        ({"shipped": 100, "bf16": 300, "q8_0": 290, "q4_0": 310}, "bf16"),
        ({"shipped": 100, "bf16": 100, "q8_0": 290, "q4_0": 310}, "q8_0"),
        ({"shipped": 100, "bf16": 80, "q8_0": 108, "q4_0": 109}, "shipped"),
        ({"shipped": 100, "q4_0": 120}, "q4_0"),
        ({"shipped": 100}, "shipped"),
    ],
)
def test_of_formats_about_as_fast_the_most_faithful_is_taken(speeds, picked):
    assert fastest_format(speeds) == picked


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The real model, with an empty cache for its copies, and few questions to compare them on."""
    path = models.locate(MODEL)
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "REFERENCE_QUESTIONS", weights.REFERENCE_QUESTIONS[:8])
    return path


def files(cache):
    """Return the names of what is kept of copies."""
    return {path.name for path in cache.glob("cache/working/*/*") if path.name != "lock"}


@pytest.mark.model
def test_a_copy_is_made_once_and_says_what_it_costs(shipped, tmp_path, monkeypatch):
    made = converted_weights(shipped, "q8_0")
    assert files(tmp_path) == {"q8_0.gguf", "q8_0.json"}
    assert (
        0 < made.fidelity.shift < 0.5 and 0 <= made.fidelity.changed <= 8 == made.fidelity.questions
    )
    assert json.loads(made.path.with_suffix(".json").read_text())["sha256"] == models.sha256(
        made.path
    )
    assert made.about.startswith("working copy in q8_0: mean |change of log-probability| 0.")

    monkeypatch.setattr(weights, "measure_fidelity", None)  # would raise
    before = made.path.stat().st_mtime_ns
    assert converted_weights(shipped, "q8_0") == made
    assert made.path.stat().st_mtime_ns == before

    monkeypatch.setattr(weights, "measure_fidelity", lambda *_: Fidelity(0.0, 0, 8))
    made.path.write_bytes(b"damaged")
    again = converted_weights(shipped, "q8_0")
    assert again.path.stat().st_size > 10**8 and again.fidelity == Fidelity(0.0, 0, 8)


@pytest.mark.model
def test_the_fastest_is_measured_once_and_the_others_are_removed(shipped, tmp_path, monkeypatch):
    measured = []

    def speed(path, threads):
        measured.append(path.stem)
        return {"q8_0": 200.0, "q4_0": 50.0}.get(path.stem, 100.0)

    monkeypatch.setattr(weights, "measure_speed", speed)
    monkeypatch.setattr(weights, "measure_fidelity", lambda *_: Fidelity(0.1, 1, 8))
    made = converted_weights(shipped, "auto", 1)
    assert (made.format, made.fidelity) == ("q8_0", Fidelity(0.1, 1, 8))
    assert made.speeds == {
        "shipped": 100.0,
        "bf16": 100.0,
        "f16": 100.0,
        "q8_0": 200.0,
        "q4_0": 50.0,
    }
    assert {name.partition("-")[0] for name in files(tmp_path)} == {
        "q8_0.gguf",
        "q8_0.json",
        "choice",
    }
    measured.clear()
    assert converted_weights(shipped, "auto", 1) == made and not measured
    # another number of threads, another choice
    assert converted_weights(shipped, "auto", 2).format == "q8_0" and measured


@pytest.mark.model
def test_speed_is_that_of_a_full_batch(shipped):
    assert 10 < weights.measure_speed(shipped, 1) < 100_000


@pytest.mark.model
def test_what_does_not_fit_is_refused_before_it_is_made(shipped, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(weights.system, "free_memory", lambda: 2 * 10**8)
        with pytest.raises(
            ModelError,
            match=r"bf16 takes about \d+ MB, and 200 MB of memory are free\. Set weights",
        ):
            converted_weights(shipped, "bf16")
    Disk = namedtuple("Disk", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10**7))
    with pytest.raises(ModelError, match=r"10 MB are free in .*SELFLOOP_CACHE"):
        converted_weights(shipped, "bf16")
    monkeypatch.setattr(weights, "measure_speed", lambda *_: 1.0)
    assert converted_weights(shipped, "auto").format == "shipped"  # where none fits
    assert {name.partition("-")[0] for name in files(tmp_path)} == {"choice"}


@pytest.mark.model
def test_a_copy_that_cannot_be_made_leaves_nothing_behind(shipped, tmp_path, monkeypatch):
    format = weights.Format(999, 1.0)
    monkeypatch.setattr(weights, "FORMATS", {"bf16": format})
    with pytest.raises(ModelError, match=r"cannot write .* in bf16: .*Set weights: shipped"):
        converted_weights(shipped, "bf16")
    assert files(tmp_path) == set()


def test_the_shipped_file_needs_no_copy(tmp_path):
    assert converted_weights(tmp_path / "any.gguf", "shipped").path == tmp_path / "any.gguf"
