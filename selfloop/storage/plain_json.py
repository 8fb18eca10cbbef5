"""JSON that a stranger may have written: what cannot be read is a ValueError, however it is broken.

Python's own reader raises RecursionError for JSON that is nested deeply, and reads a file of any
size.
"""

import json
from pathlib import Path
from typing import Any

LARGEST = 64 << 20  # bytes of a file: a tokenizer's largest is half of that


def parsed(text: str | bytes) -> Any:
    """Return the data in a JSON text.

    Raises ValueError for anything else, with the reason on one line.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """Return the data in a JSON file of at most `largest` bytes.

    Raises ValueError, or OSError for the disk.
    """
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it has more than {largest:,} bytes")
    return parsed(content.removeprefix(b"\xef\xbb\xbf"))


def read_object(path: Path, largest: int = LARGEST) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises ValueError where there is none, or OSError for the disk.
    """
    data = read_json(path, largest)
    if not isinstance(data, dict):
        raise ValueError("it holds no JSON object")
    return data
