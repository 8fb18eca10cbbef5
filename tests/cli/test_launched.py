"""`selfloop run` and `resume` as one of several processes: the first plays the run."""

import pytest

from selfloop import system
from selfloop.registry import builtin

RECIPE = "backend: scripted\nask: {questions: 1, sources: [blank_slate]}\nanswer: {samples: 1}\n"


@pytest.fixture
def launched(monkeypatch):
    """Make this process one of a launch; return what its plugin was told."""
    joined = []

    def _launched(rank, size, exit_code):
        class Library:
            @staticmethod
            def join_launch(*place):
                joined.append(place)
                return exit_code

        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(size))
        monkeypatch.setattr(builtin, "library", lambda: Library)
        return joined

    return _launched


@pytest.mark.parametrize("command", [("run", "recipe.yaml"), ("resume", "runs/recipe")])
def test_another_process_plays_no_run(command, launched, write, selfloop):
    home = write({"recipe.yaml": RECIPE})
    assert selfloop("run", "recipe.yaml").code == 0
    before = sorted(home.rglob("*"))
    joined = launched(1, 2, 7)
    done = selfloop(*command)
    assert (done.code, done.text, joined) == (7, "", [(1, 2)])
    assert sorted(home.rglob("*")) == before


def test_the_first_process_plays_the_run(launched, write, selfloop):
    home = write({"recipe.yaml": RECIPE})
    joined = launched(0, 2, None)
    assert selfloop("run", "recipe.yaml").code == 0 and joined == [(0, 2)]
    assert (home / "runs/recipe").is_dir()


@pytest.mark.parametrize("name", ["check", "plan"])
def test_other_commands_run_by_themselves(name, launched, write, selfloop):
    write({"recipe.yaml": RECIPE})
    joined = launched(1, 2, 7)
    assert selfloop(name, "recipe.yaml").code == 0 and joined == []


@pytest.mark.parametrize(
    ("rank", "size", "expected"),
    [("1", "2", (1, 2)), ("0", "1", None), ("", "2", None), ("0", "", None), ("a", "2", None)],
)
def test_a_launcher_numbers_its_processes(rank, size, expected, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert system.launched() == expected
