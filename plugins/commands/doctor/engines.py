"""Checks of llama.cpp and of PyTorch's GPU.

Each is imported in a process of its own: a llama.cpp that was built for another processor kills
the process that imports it.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from .features import FEATURES, features
from .findings import Finding

# Seconds for another Python to answer, without and with --deep; PyTorch may take minutes.
TIMEOUT_S = {False: 20.0, True: 180.0}
REBUILD = (
    "CMAKE_ARGS=-DGGML_NATIVE=on pip install --force-reinstall --no-deps --no-cache-dir "
    "--no-binary llama-cpp-python llama-cpp-python"
)
LLAMA_CODE = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
CUDA_CODE = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"


def llama_cpp(deep: bool) -> Iterator[Finding]:
    """Check that llama.cpp can be used, and that its build uses the processor's features."""
    try:
        version = metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        yield Finding("llama.cpp", "not installed", "note", "pip install 'selfloop[llamacpp]'")
        return
    done = run_python(LLAMA_CODE, deep)
    if done.returncode:
        # A negative code is a signal: the process met an instruction that it does not have.
        reason = _last_line(done.stderr)
        if done.returncode < 0:
            reason = "it dies when it starts: it was built for another processor"
        text = f"llama-cpp-python {version} cannot be used: {reason}"
        yield Finding("llama.cpp", text, "wrong", REBUILD)
        return
    built_with = _enabled(done.stdout)
    listed = ", ".join(sorted(built_with)) or "no special features"
    yield Finding("llama.cpp", f"llama-cpp-python {version}, built with {listed}")
    unused = [name for name in features() or () if FEATURES[name] not in built_with]
    if unused:
        text = f"this processor has {', '.join(unused)}, and llama.cpp was built without"
        yield Finding("llama.cpp", text, "slow", REBUILD)


def _enabled(system_info: str) -> set[str]:
    """Return the features that are on in "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 |"."""
    enabled = set()
    for part in system_info.replace(":", "|").split("|"):
        name, _, value = part.partition("=")
        if value.strip() == "1":
            enabled.add(name.strip())
    return enabled


def gpu(deep: bool) -> Iterator[Finding]:
    """Check that PyTorch can use the GPU; only with `deep` is it imported."""
    has_driver = shutil.which("nvidia-smi") is not None
    has_driver = has_driver or Path("/proc/driver/nvidia/version").exists()
    driver = "an NVIDIA driver is installed" if has_driver else "no NVIDIA driver"
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        yield Finding("gpu", f"{driver}; without PyTorch none is used", "note")
        return
    is_for_processor = version.endswith("+cpu")
    if has_driver and is_for_processor:
        mend = "install PyTorch for CUDA: https://pytorch.org/get-started/locally/"
        yield Finding("gpu", f"{driver}, but PyTorch {version} cannot use it", "slow", mend)
    elif is_for_processor:
        yield Finding("gpu", f"{driver}; PyTorch {version} uses the processor")
    elif not deep:
        advice = "Whether it finds a GPU: selfloop doctor --deep"
        yield Finding("gpu", f"{driver}, PyTorch {version}. {advice}")
    else:
        yield _cuda(f"PyTorch {version}", has_driver)


def _cuda(torch: str, has_driver: bool) -> Finding:
    done = run_python(CUDA_CODE, deep=True)
    if done.returncode:
        mend = "pip install --force-reinstall 'selfloop[hf]'"
        text = f"{torch} cannot be imported: {_last_line(done.stderr)}"
        return Finding("gpu", text, "wrong", mend)
    device = done.stdout.strip()
    if device:
        return Finding("gpu", f"{torch} uses {device}")
    if not has_driver:
        return Finding("gpu", f"{torch} finds no GPU and uses the processor")
    mend = "update the NVIDIA driver, or install PyTorch for the CUDA that it has"
    return Finding("gpu", f"there is an NVIDIA driver, but {torch} finds no GPU", "slow", mend)


def run_python(code: str, deep: bool) -> "subprocess.CompletedProcess[str]":
    """Run code in another Python; one that does not answer in time has failed."""
    command, timeout = [sys.executable, "-c", code], TIMEOUT_S[deep]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        reason = f"no answer within {timeout:.0f} seconds"
        return subprocess.CompletedProcess(command, 1, "", reason)


def _last_line(text: str) -> str:
    """Return the last line that is not blank: of a traceback, the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
