"""Build llama.cpp's own `llama-batched-bench` from the sources that the installed llama-cpp-python
was built from.

    # default: ~/.cache/selfloop/batched-bench
    python benchmarks/build_batched_bench.py [FOLDER]

Prints the program's path last. The sources come from the package registry (the sdist of the same
version holds llama.cpp), so both sides of `generate.py` run the same llama.cpp with the same
compiler switches. Needs a C++ compiler; cmake and ninja are taken from the registry too. Takes
about four minutes on two cores, and nothing when the program is there.
"""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

import platformdirs

VERSION = importlib.metadata.version("llama-cpp-python")
SWITCHES = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
]


def default_folder() -> Path:
    """Return where the program is kept between calls."""
    cache = os.environ.get("SELFLOOP_CACHE") or platformdirs.user_cache_dir("selfloop")
    return Path(cache) / "batched-bench"


def program(folder: Path) -> Path:
    """Return the program's path for the installed version, there or not."""
    return folder / VERSION / "llama-batched-bench"


def build(folder: Path) -> Path:
    """Fetch, compile and keep the program; return its path."""
    target = program(folder)
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as scratch:
        tools = Path(scratch, "tools")
        venv.create(tools, with_pip=True)
        pip = [str(tools / "bin" / "pip"), "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "cmake", "ninja"], check=True)
        # Only to read the package's name pip wants its build tool; without isolation it takes the
        # one in `tools`.
        fetch = [
            "download",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--no-build-isolation",
            "-d",
            scratch,
        ]
        subprocess.run([*pip, "install", "scikit-build-core"], check=True)
        subprocess.run([*pip, *fetch, f"llama-cpp-python=={VERSION}"], check=True)
        with tarfile.open(next(Path(scratch).glob("llama_cpp_python-*.tar.gz"))) as archive:
            archive.extractall(scratch, filter="data")
        source = next(Path(scratch).glob("llama_cpp_python-*/vendor/llama.cpp"))
        made = Path(scratch, "made")
        path = f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}"
        here = {**os.environ, "PATH": path}
        cmake = str(tools / "bin" / "cmake")
        static = ["-DBUILD_SHARED_LIBS=OFF"]  # one file to keep
        subprocess.run(
            [cmake, "-G", "Ninja", "-S", source, "-B", made, *SWITCHES, *static],
            check=True,
            env=here,
        )
        subprocess.run(
            [cmake, "--build", made, "--target", "llama-batched-bench"], check=True, env=here
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        (made / "bin" / "llama-batched-bench").replace(target)
    return target


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()))
