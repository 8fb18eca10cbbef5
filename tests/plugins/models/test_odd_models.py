"""Every part of a model is applied, refused, or reported as not used."""

import json
import logging
import struct
from pathlib import Path
from time import monotonic

import pytest
import test_models
from conftest import Selfloop
from selfloop_plugins import models
from selfloop_plugins._torch import checkpoint
from selfloop_plugins.models import stores
from test_models import BASE, gguf, put, text

from selfloop.errors import ModelError

home = test_models.home  # a fixture
OLLAMA = "application/vnd.ollama.image."
DEEP = b"[" * 200_000
SHA = "a" * 64


def manifest(root: Path, *kinds: str) -> Path:
    """Write an Ollama model with layers of these types; return its weights."""
    root = root / ".ollama/models"
    digests = {kind: f"{number:064}" for number, kind in enumerate(kinds)}
    layers = [{"mediaType": kind, "digest": f"sha256:{digest}"} for kind, digest in digests.items()]
    put(
        root / "manifests/registry.ollama.ai/library/m/latest",
        json.dumps({"layers": layers}).encode(),
    )
    return put(root / f"blobs/sha256-{digests.get(f'{OLLAMA}model', SHA)}", gguf(BASE))


def split(folder: Path, count: int, *, left_out: tuple[int, ...] = ()) -> list[Path]:
    numbers = [number for number in range(1, count + 1) if number not in left_out]
    return [put(folder / f"big-{number:05}-of-{count:05}.gguf", gguf(BASE)) for number in numbers]


@pytest.mark.parametrize("ask", [models.check, models.locate])
def test_an_adapter_layer_is_refused_by_name(ask, home):
    manifest(home, f"{OLLAMA}model", f"{OLLAMA}adapter")
    with pytest.raises(
        ModelError, match=r"ollama:m:latest cannot be used: .* its layer sha256:0+ is an adapter"
    ):
        ask("ollama:m")


@pytest.mark.parametrize("kind", [f"{OLLAMA}surprise", "application/octet-stream", "template", ""])
def test_a_layer_of_an_unknown_type_is_refused_by_name(kind, home):
    manifest(home, f"{OLLAMA}model", kind)
    with pytest.raises(ModelError, match="unknown type"):
        models.locate("ollama:m")


def test_what_is_left_of_a_model_is_said_once(home, caplog, selfloop: Selfloop):
    caplog.set_level(logging.INFO, "selfloop.models")
    kinds = [
        f"{OLLAMA}{kind}"
        for kind in ("model", "template", "system", "params", "license", "projector")
    ]
    weights = manifest(home, *kinds)
    models.check("ollama:m")
    assert models.locate("ollama:m") == weights
    unused = "its prompt template, its system prompt, its parameters, the part that sees or hears"
    assert [record.message for record in caplog.records] == [
        f"of ollama:m:latest not used: {unused}"
    ]
    assert f"of ollama:m:latest not used: {unused}" in selfloop("models").out
    (row,) = [
        row
        for row in json.loads(selfloop("models", "--json").out)["models"]
        if row["name"] == "ollama:m:latest"
    ]
    assert (row["unused"], row["wrong"]) == (unused, "")


def test_two_files_of_weights_are_refused(home):
    root = home / ".ollama/models"
    layers = [{"mediaType": f"{OLLAMA}model", "digest": f"sha256:{SHA}"}] * 2
    put(
        root / "manifests/registry.ollama.ai/library/m/latest",
        json.dumps({"layers": layers}).encode(),
    )
    with pytest.raises(ModelError, match="2 files of weights"):
        models.locate("ollama:m")


@pytest.mark.parametrize(
    "content", [DEEP, b'{"layers":' + DEEP, b"{" * 9, b"\0", b" " * 2_000_000, b"null"]
)
def test_a_manifest_that_is_broken_is_one_line(content, home, selfloop: Selfloop):
    put(home / ".ollama/models/manifests/registry.ollama.ai/library/m/latest", content)
    said = selfloop("models")
    assert said.code == 0
    assert "broken: its manifest" in said.out


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"general.type": "adapter", "adapter.type": "lora"}, "is an adapter"),
        ({"general.type": "mmproj"}, "sees or hears"),
        ({"general.architecture": "clip"}, "sees or hears"),
        ({"general.type": "imatrix"}, "no model but imatrix"),
    ],
)
def test_a_gguf_file_that_is_no_model_is_refused(values, said, home):
    put(home / "x.gguf", gguf(BASE | values))
    for ask in (models.check, models.locate):
        with pytest.raises(ModelError, match=said):
            ask("x.gguf")


def test_a_model_of_several_files_is_whole_or_refused(home):
    split(home, 3, left_out=(2,))
    with pytest.raises(ModelError, match=r"one of the 3 files .* lacks big-00002-of-00003\.gguf"):
        models.check("big-00001-of-00003.gguf")
    split(home, 3)
    models.check("big-00001-of-00003.gguf")
    with pytest.raises(
        ModelError, match=r"not the first of the 3 files of a model; name big-00001-of-00003\.gguf"
    ):
        models.check("big-00002-of-00003.gguf")
    put(home / "big-00003-of-00003.gguf", b"<html>")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        models.check("big-00001-of-00003.gguf")


def test_a_part_under_another_name_is_refused(home):
    count = text("split.count") + struct.pack("<IH", 2, 3)
    whole = gguf(BASE)
    file = (
        whole[:16]
        + struct.pack("<Q", struct.unpack("<Q", whole[16:24])[0] + 1)
        + count
        + whole[24:]
    )
    put(home / "x.gguf", file)
    with pytest.raises(ModelError, match="one of the 3 files"):
        models.check("x.gguf")


def test_the_hash_of_a_model_is_that_of_all_its_files(home, monkeypatch):
    monkeypatch.setenv(models.CACHE_VARIABLE, str(home / "cache"))
    first, _, last = split(home, 3)
    before = models.sha256(first)
    assert models.stored_sha256(first) == before
    put(last, gguf(BASE | {"general.name": "another"}))
    assert models.stored_sha256(first) is None
    assert models.sha256(first) != before


def test_all_files_of_a_model_count_in_the_list(home, selfloop: Selfloop):
    split(home / "d", 3)
    split(home / "e", 2, left_out=(2,))
    rows = {
        row["name"]: row for row in json.loads(selfloop("models", "d", "e", "--json").out)["models"]
    }
    assert rows["d/big-00001-of-00003.gguf"]["parameters"] == 3 * 32
    assert rows["d/big-00001-of-00003.gguf"]["bytes"] == 3 * len(gguf(BASE))
    assert "lacks big-00002-of-00002.gguf" in rows["e/big-00001-of-00002.gguf"]["wrong"]


# --- LM Studio


@pytest.mark.parametrize("where", [".lmstudio", ".cache/lm-studio"])
def test_the_downloads_folder_of_its_settings_is_read(where, home):
    there = put(home / "disk/models/pub/m/x.gguf", gguf(BASE))
    put(
        home / where / "settings.json",
        json.dumps({"downloadsFolder": str(home / "disk/models")}).encode(),
    )
    assert models.locate("lmstudio:pub/m/x.gguf") == there


@pytest.mark.parametrize(
    "content",
    [DEEP, b"{", b"[]", b'{"downloadsFolder": 3}', b'{"downloadsFolder": "a\\u0000b"}', b"\xff"],
)
def test_settings_that_are_broken_leave_the_usual_folder(content, home, caplog):
    there = put(home / ".lmstudio/models/pub/m/x.gguf", gguf(BASE))
    put(home / ".lmstudio/settings.json", content)
    assert models.locate("lmstudio:x.gguf") == there
    assert all("\n" not in record.message for record in caplog.records)


def test_each_file_is_listed_once_whatever_leads_to_it(home, selfloop: Selfloop):
    """Faults.md: below a link loop each file was listed five times."""
    root = home / "disk/models"
    put(root / "pub/m/x.gguf", gguf(BASE))
    (root / "pub/again").symlink_to(root)
    (root / "pub/m/loop").symlink_to("..")
    (root / "pub/m/y.gguf").hardlink_to(root / "pub/m/x.gguf")
    (root / "z.gguf").symlink_to(root / "pub/m/x.gguf")
    put(home / ".lmstudio/settings.json", json.dumps({"downloadsFolder": str(root)}).encode())
    (home / ".lmstudio/models").symlink_to(root)
    rows = json.loads(selfloop("models", "--json").out)["models"]
    assert [row["name"] for row in rows if row["place"] == "LM Studio"] == ["lmstudio:pub/m/x.gguf"]
    rows = json.loads(selfloop("models", "disk", ".", "--json").out)["models"]
    assert [
        row["name"]
        for row in rows
        if row["name"].endswith(".gguf") and row["place"] in ("disk", ".")
    ] == ["disk/models/pub/m/x.gguf"]


def test_a_folder_that_may_not_be_looked_into_is_said(home, caplog, monkeypatch):
    """Simulated, for tests may run as root, whom nothing is forbidden."""
    put(home / "d/x.gguf", gguf(BASE))
    (home / "d/closed").mkdir()
    scandir = stores.os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(stores.os, "scandir", refuse)
    assert stores.ggufs(home / "d") == [home / "d/x.gguf"]
    assert "closed may not be looked into" in caplog.text


def test_a_huge_tree_is_not_walked_to_its_end(home, caplog, monkeypatch):
    monkeypatch.setattr(stores, "MAX_ENTRIES", 50)
    for number in range(30):
        put(home / f"d/{number:02}/a.txt", b"")
        put(home / f"d/{number:02}/b.txt", b"")
    assert len(list(stores._files(home / "d"))) < 60
    assert "has more than 50 files" in caplog.text


def test_the_part_that_sees_does_not_make_a_name_ambiguous(home):
    model = put(home / ".lmstudio/models/pub/gemma/g-Q4.gguf", gguf(BASE))
    put(home / ".lmstudio/models/pub/gemma/mmproj-g.gguf", gguf({"general.architecture": "clip"}))
    assert models.locate("lmstudio:gemma") == model


# --- a folder for transformers


def folder(root: Path, **files: bytes) -> Path:
    for name, content in {"config.json": b"{}", "model.safetensors": b"", **files}.items():
        put(root / "m" / name, content)
    return root / "m"


def test_an_adapter_beside_a_model_is_refused(home):
    """Transformers would load the model that the adapter names, in place of the one beside it."""
    at = folder(home, **{"adapter_config.json": b'{"base_model_name_or_path": "else/where"}'})
    with pytest.raises(
        ModelError, match=r"has an adapter_config\.json: an adapter is not applied here"
    ):
        checkpoint.check(str(at))


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "generation_config.json", checkpoint.INDEX]
)
@pytest.mark.parametrize("content", [DEEP, b"{", b"[]", b"\xff\xfe", b""])
def test_a_broken_file_of_settings_is_one_line(name, content, home):
    with pytest.raises(ModelError, match=f"{name} cannot be read: ") as refused:
        checkpoint.check(str(folder(home, **{name: content})))
    assert "\n" not in str(refused.value)


def test_weights_in_several_files_are_all_there(home):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    at = folder(home, **{checkpoint.INDEX: json.dumps(index).encode(), "model-1.safetensors": b""})
    with pytest.raises(ModelError, match=r"lacks model-2\.safetensors \(1 of 2 files\)"):
        checkpoint.check(str(at))


def test_a_header_that_says_too_much_ends_soon(home):
    """A list of a billion empty texts in a file of zeros took minutes."""
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 28)
    with (home / "x.gguf").open("wb") as file:
        file.write(start)
        file.truncate(len(start) + (1 << 32))
    started = monotonic()
    with pytest.raises(ModelError, match="268,435,456 texts"):
        models.read_header(home / "x.gguf")
    assert monotonic() - started < 5
