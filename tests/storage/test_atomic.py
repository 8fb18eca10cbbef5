"""`selfloop.storage.atomic`: a file is there whole, or as it was.

Nothing in the source writes a file in another way.
"""

import ast
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfloop.errors import DiskFullError, disk_full
from selfloop.storage import atomic
from selfloop.storage.store import Store

ROOT = Path(__file__).parents[2]
SOURCES = sorted((*(ROOT / "selfloop").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")))


class Broken(Exception):
    """Stands for whatever ends a write in its midst."""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_written_with_the_bytes_it_was_given(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "a", "é\r\n\n")
    assert (tmp_path / "a").read_bytes() == "é\r\n\n".encode()
    assert names(tmp_path) == {"a"}


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(Broken), atomic.replacing(tmp_path / "a") as part:
        part.write_text("ne")
        raise Broken
    with pytest.raises(UnicodeEncodeError):
        atomic.write_text(tmp_path / "a", "\ud800")
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == {"a"}


def test_what_fails_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    with pytest.raises(Broken), atomic.replacing_folder(tmp_path / "a") as part:
        (part / "new").touch()
        raise Broken
    assert names(tmp_path) == {"a"} and names(tmp_path / "a") == {"old"}


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_takes_the_place_of_another(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(sys, "platform", "darwin")
    for name in ("one", "two"):
        with atomic.replacing_folder(tmp_path / "a") as part:
            (part / name).touch()
    assert names(tmp_path) == {"a"} and names(tmp_path / "a") == {"two"}


def test_a_folder_that_was_set_aside_by_a_killed_process_is_put_back(tmp_path: Path) -> None:
    old = atomic._temporary(tmp_path / "a", "old")
    old.mkdir()
    (old / "kept").touch()
    with pytest.raises(Broken), atomic.replacing_folder(tmp_path / "a"):
        raise Broken
    assert names(tmp_path / "a") == {"kept"}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such permissions")
def test_permissions_are_those_of_the_old_file_or_of_the_umask(tmp_path: Path) -> None:
    old_umask = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "a", "1")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
        (tmp_path / "a").chmod(0o604)
        atomic.write_text(tmp_path / "a", "2")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o604
    finally:
        os.umask(old_umask)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    atomic.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "file").read_text() == "new"
    assert names(tmp_path) == {"real", "link"} and names(tmp_path / "real") == {"file"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_and_a_folder_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match=r"device or a pipe|directory"):
            atomic.write_text(tmp_path / name, "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with atomic.replacing(tmp_path / "a") as part:
        with atomic.replacing(tmp_path / "a") as two:
            assert part != two
            part.write_text("one")
            two.write_text("two")
        assert (tmp_path / "a").read_text() == "two"
    assert (tmp_path / "a").read_text() == "one" and names(tmp_path) == {"a"}


def test_what_a_killed_process_left_is_cleared_and_that_of_others_is_not(tmp_path: Path) -> None:
    dead = os.fork() if hasattr(os, "fork") else 0
    if not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    left = atomic._temporary(tmp_path / "a").name
    ours = tmp_path / left
    gone = tmp_path / left.replace(f"-{os.getpid()}-", f"-{dead}-")
    elsewhere = tmp_path / left.replace(f".{atomic._host()}-", ".000000-")
    stranger = tmp_path / ".vimrc.part"
    for path in (ours, gone, elsewhere, stranger):
        path.touch()
    atomic.write_text(tmp_path / "a", "x")
    assert names(tmp_path) == {"a", ours.name, elsewhere.name, stranger.name}
    os.utime(elsewhere, (1, 1))
    Store(tmp_path, write=True).close()
    assert not elsewhere.exists() and ours.exists() and stranger.exists()


def test_a_new_file_never_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic.write_new(tmp_path / "folder" / "a", "one")
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "nowhere")

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "this file system has no hard links")

    for _ in range(2):
        for name in ("a", "link"):
            with pytest.raises(FileExistsError):
                atomic.write_new(tmp_path / "folder" / name, "two")
        monkeypatch.setattr(os, "link", no_links)
    atomic.write_new(tmp_path / "folder" / "b", "new")
    assert (tmp_path / "folder" / "a").read_text() == "one" and (
        tmp_path / "folder" / "b"
    ).read_text() == "new"
    assert names(tmp_path / "folder") == {"a", "b", "link"} and not (tmp_path / "nowhere").exists()


def test_a_long_name(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / ("ü" * 127), "x")
    assert names(tmp_path) == {"ü" * 127}


def test_a_line_that_was_cut_off_is_ended(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"a": 1}\n{"b"')
    with atomic.appending(tmp_path / "log") as file:
        file.write(b"{}\n")
    assert (tmp_path / "log").read_bytes() == b'{"a": 1}\n{"b"\n{}\n'


# --- what a full disk looks like


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
        (OSError(errno.EFBIG, "File too large"), "larger than the system lets it be"),
        (OSError("Error: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), None),
        # a model may have written this
        (ValueError("the disk is full: no space left on device"), None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_full_disk_is_known(error: Exception, fact: str | None, tmp_path: Path) -> None:
    try:
        raise RuntimeError("the component has a message of its own") from error
    except RuntimeError as outer:
        full = disk_full(outer, tmp_path)
    assert (full is None) == (fact is None)
    if full and fact:
        assert fact in str(full) and str(tmp_path) in str(full) and "Free some space" in str(full)


def test_a_full_disk_is_said_with_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFullError, match=r"the disk is full: .*/a\. Free"),
        atomic.replacing(tmp_path / "a") as part,
    ):
        part.touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == set()


# --- nothing writes in another way

# Calls that write, or may: of any object, by their last name.
WRITERS = {
    "write_text", "write_bytes", "touch", "rename", "renames", "link", "symlink", "symlink_to",
    "hardlink_to", "copyfile", "copy2", "copytree", "copyfileobj", "move", "savez", "save_file",
    "save_pretrained", "savefig", "write_table", "to_parquet", "to_csv", "save_to_disk",
    "GGUFWriter", "NamedTemporaryFile", "mkstemp", "ZipFile", "write_image", "tofile",
    "requantise_file", "download",
}  # fmt: skip
# file: the calls that may stand in it, and why
ALLOWED = {
    "selfloop/storage/atomic.py": (
        {"write_bytes", "open ab+", "open rb+", "touch", "rename", "move", "replace", "link"},
        "the helper",
    ),
    "selfloop/system.py": ({"write_text"}, "a switch of the kernel in /proc"),
    "selfloop/api/ask.py": (
        {"write_text"},
        "a file in a temporary folder that goes away with the command",
    ),
    "selfloop/evaluation/rescoring.py": (
        {"copytree"},
        "into a new run, which is none before its recipe is written",
    ),
    "selfloop/storage/store.py": ({"np.save"}, "into memory"),
    "selfloop/storage/parquet.py": ({"write_table"}, "into atomic.replacing"),
    "plugins/report/figure_style.py": ({"savefig"}, "into atomic.replacing, or into memory"),
    "plugins/export/dataset.py": (
        {"open w", "write_text", "save_to_disk"},
        "into atomic.replacing_folder",
    ),
    "plugins/export/targets.py": ({"copyfile", "write_text"}, "into atomic.replacing_folder"),
    "plugins/export/merge.py": (
        {"copyfile", "save_pretrained", "requantise_file"},
        "into what targets.py gives",
    ),
    "plugins/_torch/adapter.py": ({"GGUFWriter"}, "into atomic.replacing"),
    "plugins/_torch/checkpoint.py": ({"save_pretrained"}, "into atomic.replacing_folder"),
    "plugins/backends/llama_cpp/grammar.py": ({"replace"}, "a token in a grammar"),
    "plugins/backends/llama_cpp/weights.py": ({"requantise_file"}, "into atomic.replacing"),
    "plugins/tuners/lora/checkpoint.py": ({"save_file"}, "into atomic.replacing"),
    "plugins/tuners/lora/processes.py": ({"torch.save"}, "into memory, for another process"),
    "plugins/tuners/lora/tuner.py": ({"save_pretrained"}, "into atomic.scratch_folder"),
    "plugins/models/fetching.py": (
        {"copyfile", "open wb", "ZipFile", "copyfileobj", "download"},
        "into atomic.replacing; a wheel is read",
    ),
}


def writes(source: str) -> Iterator[str]:
    """Yield the calls of a file that write, or may."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        value = node.func.value if isinstance(node.func, ast.Attribute) else None
        owner = value.id if isinstance(value, ast.Name) else ""
        if name == "open" and _mode(node):
            yield f"open {_mode(node)}"
        elif (
            name == "replace"
            and isinstance(node.func, ast.Attribute)
            and len(node.args) == 1
            and not node.keywords
        ):
            yield name  # of a path; a string's takes two
        elif f"{owner}.{name}" in (
            "np.save",
            "torch.save",
            "os.replace",
            "json.dump",
            "pickle.dump",
        ):
            yield f"{owner}.{name}"
        elif name in WRITERS and owner not in (
            "atomic",
            "store",
        ):  # Store.save_file is the helper's
            yield name


def _mode(call: ast.Call) -> str:
    """Return the mode of an `open` that writes, or nothing."""
    texts = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [
        arg.value for arg in texts if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
    ]
    return next((mode for mode in modes if len(mode) <= 4 and set(mode) & set("wax+")), "")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_written_by_the_helper_alone(path: Path) -> None:
    allowed, _ = ALLOWED.get(str(path.relative_to(ROOT)), (set(), ""))
    calls = set(writes(path.read_text(encoding="utf-8")))
    assert calls - allowed == set(), "write with selfloop.storage.atomic, or say above why not"


def test_what_is_allowed_is_needed() -> None:
    for name, (allowed, _) in ALLOWED.items():
        calls = set(writes((ROOT / name).read_text(encoding="utf-8")))
        assert allowed - calls == set(), name


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("path.write_text('x')", "write_text"),
        ("open(path, 'w')", "open w"),
        ("path.open(mode='ab')", "open ab"),
        ("part.replace(path)", "replace"),
        ("json.dump(x, file)", "json.dump"),
        ("np.save(path, x)", "np.save"),
        ("os.replace(a, b)", "os.replace"),
        ("shutil.copyfile(a, b)", "copyfile"),
    ],
)
def test_a_direct_write_is_found(line: str, name: str) -> None:
    assert list(writes(line)) == [name]


@pytest.mark.parametrize(
    "line",
    ["path.open('rb')", "text.replace('a', 'b')", "replace(record, x=1)", "run.open(folder)"],
)
def test_what_does_not_write_is_not(line: str) -> None:
    assert list(writes(line)) == []
