"""Everything that a run keeps on disk.

run_folder.py    the name of every file of a run
store.py         the database of a run; its tables: schema.py
upgrades.py      how records of earlier versions are read
pinned.py        the model that a run was made with
recorder.py      the backend that replays stored completions: resuming is nothing else
atomic.py        the one way to write a file
parquet.py       columns of data as Parquet
plain_json.py    JSON without surprises
run_names.py     names of runs that every system can hold
"""
