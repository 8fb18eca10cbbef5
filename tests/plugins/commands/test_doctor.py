"""`selfloop doctor`: its findings and fixes; nothing that is missing makes it crash."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from conftest import Selfloop
from selfloop_plugins.commands import doctor
from selfloop_plugins.commands.doctor import engines
from selfloop_plugins.commands.doctor import findings as doctor_findings

from selfloop import system

TOPICS = {
    "python",
    "selfloop",
    "plugins",
    "processor",
    "cores",
    "memory",
    "llama.cpp",
    "gpu",
    "cache",
    "runs",
}


@pytest.fixture
def home(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(work))
    for name in ("OMP_NUM_THREADS", "HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    return work


def findings(selfloop: Selfloop, *args: str) -> dict[str, list[dict[str, str]]]:
    said = selfloop("doctor", "--json", *args)
    by_topic: dict[str, list[dict[str, str]]] = {}
    levels = set()
    for finding in json.loads(said.out)["findings"]:
        by_topic.setdefault(finding["topic"], []).append(finding)
        levels.add(finding["level"])
    assert said.code == int("wrong" in levels)
    return by_topic


@pytest.mark.extra("llamacpp")
def test_it_says_what_there_is(home: Path, selfloop: Selfloop) -> None:
    found = findings(selfloop)
    assert set(found) >= TOPICS
    assert found["python"][0]["said"].startswith(sys.version.split()[0])
    assert found["[llamacpp]"][0]["said"].startswith("llama-cpp-python 0.3.")
    assert "built with" in found["llama.cpp"][0]["said"]
    assert found["runs"][-1]["said"].endswith(" free in runs")


@pytest.mark.extra("llamacpp")
def test_it_is_read_by_people_too(home: Path, selfloop: Selfloop) -> None:
    said = selfloop("doctor")
    lines = said.out.splitlines()
    assert lines[0].startswith("ok    python          3.")
    assert lines[-1].startswith("wrong: nothing. Slow: ")
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize("check", list(doctor.CHECKS))
def test_a_check_that_raises_stops_no_other(
    check: str, home: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(deep: bool) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(
        doctor,
        "CHECKS",
        {"quick": lambda deep: iter([doctor_findings.Finding("quick", "x")]), check: broken},
    )
    found = findings(selfloop)
    assert found[check][0]["said"] == "could not be checked: RuntimeError: no such thing"
    assert found["quick"]


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name] for name in names})


def test_a_missing_extra_is_its_pip_line(
    home: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "extras", "llama.cpp", "gpu")

    def version(name: str) -> str:
        if name == "gguf":
            return "0.1"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    found = findings(selfloop)
    assert "llama-cpp-python is not installed" in found["[llamacpp]"][0]["said"]
    assert found["[llamacpp]"][0]["mend"] == "pip install 'selfloop[llamacpp]'"
    assert "gguf 0.1 is installed, but >=0.16 is needed" in found["[tune]"][0]["said"]
    assert "torch is not installed" in found["[tune]"][0]["said"], (
        "what it takes from another extra"
    )
    assert found["backends"][0]["level"] == "wrong"
    assert found["llama.cpp"][0]["said"] == "not installed"
    assert found["gpu"][0]["said"].endswith("without PyTorch none is used")


@pytest.mark.extra("llamacpp")
def test_a_llama_cpp_that_dies_is_said_with_how_to_rebuild_it(
    home: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "llama.cpp")
    died = subprocess.CompletedProcess([], -4, "", "")
    monkeypatch.setattr(engines, "run_python", lambda code, deep: died)
    (one,) = findings(selfloop)["llama.cpp"]
    assert "it was built for another processor" in one["said"]
    assert one["mend"].startswith("CMAKE_ARGS=-DGGML_NATIVE=on pip install")


@pytest.mark.extra("llamacpp")
def test_a_llama_cpp_that_leaves_the_processor_unused_is_slow(
    home: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "llama.cpp")
    built = subprocess.CompletedProcess([], 0, "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | \n", "")
    monkeypatch.setattr(engines, "run_python", lambda code, deep: built)
    monkeypatch.setattr(system, "processor_flags", lambda: {"avx2", "avx512f"})
    found = findings(selfloop)["llama.cpp"]
    assert found[0]["said"].endswith("built with AVX2, SSE3")
    assert (found[1]["level"], found[1]["said"].split(",")[0]) == (
        "slow",
        "this processor has avx512f",
    )


def test_threads_are_held_against_cores(
    home: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "cores")
    monkeypatch.setattr(system, "logical_cores", lambda: 4)
    monkeypatch.setattr(system, "core_limit", lambda: 1.5)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    found = findings(selfloop)
    assert found["cores"][0]["said"].startswith(
        "4 for this process, of which this container allows 1.5"
    )
    assert [one["mend"] for one in found["threads"]] == [
        "set backend.threads: 1",
        "unset OMP_NUM_THREADS, or set it to 4",
    ]


def test_the_limits_of_a_container_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/a/b\n")
    (tmp_path / "a/cpu.max").write_text("150000 100000\n")
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text("1073741824\n")
    monkeypatch.setattr(system, "_CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(system, "_CONTROL_GROUP", tmp_path / "cgroup")
    assert (system.core_limit(), system.memory_limit()) == (1.5, 2**30)
    monkeypatch.setattr(system, "_CONTROL_GROUP", tmp_path / "nowhere")
    assert (system.core_limit(), system.memory_limit()) == (None, None)


def test_a_cache_that_cannot_be_written_is_wrong(
    home: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "cache")
    (home / "file").write_text("no folder")
    monkeypatch.setenv("SELFLOOP_CACHE", str(home / "file" / "cache"))
    (one,) = findings(selfloop)["cache"]
    assert one["level"] == "wrong"
    assert "SELFLOOP_CACHE" in one["mend"]


@pytest.mark.extra("llamacpp")
def test_a_broken_plugin_is_wrong(
    home: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of its own on the path, whose entry point raises."""
    folder = home / "site" / "selfloop_bad-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: selfloop-bad\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[selfloop]\nbad = no_such_module_anywhere\n")
    command = [sys.executable, "-m", "selfloop.cli", "doctor"]
    path = os.pathsep.join([str(home / "site"), *sys.path])
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, timeout=60
    )
    assert done.returncode == 1, done.stdout
    assert "wrong plugins         bad: could not be imported: ModuleNotFoundError" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("wrong: 1.")


def test_pytorch_is_imported_only_when_asked_to(
    home: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "gpu")
    asked: list[str] = []
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0")
    monkeypatch.setattr(
        engines,
        "run_python",
        lambda code, deep: asked.append(code) or subprocess.CompletedProcess([], 0, "A GPU\n", ""),
    )
    assert "selfloop doctor --deep" in findings(selfloop)["gpu"][0]["said"]
    assert not asked
    assert findings(selfloop, "--deep")["gpu"][0]["said"] == "PyTorch 2.13.0 uses A GPU"
