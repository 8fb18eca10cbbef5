"""Models on this machine: finding, fetching and hashing them.

locate.py        a model by name or path, fetched where it is missing
stores.py        folders in which other programs keep models
gguf_header.py   the header of a GGUF file
command.py       `selfloop models`
"""
