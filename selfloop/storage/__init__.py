"""Everything that a run keeps on disk.

store.py         the database of a run
recorder.py      the backend that replays stored completions: resuming is nothing else
atomic.py        the one way to write a file
parquet.py       columns of data as Parquet
plain_json.py    JSON without surprises
run_names.py     names of runs that every system can hold
"""
