"""The built-in components that selfloop chooses where a recipe or a command names none.

These are the only components that the core knows by name. Everything else that it must know of a
component is a field of `Component`. A test holds that.
"""

# The scorers of a recipe that names none, each with its `min_score`: a question below is dropped.
SCORERS = {"well_formed": 1.0, "novelty": 0.2}
# The detectors of a recipe that names none, less those that its backend cannot serve. `combined`
# makes one confidence of the four before it. `echo` leaves an answer undecided that only repeats
# the words of its question.
DETECTORS = (
    "agreement",
    "sequence_probability",
    "meaning_probability",
    "pmi",
    "combined",
    "echo",
)
OBSERVERS = ("console", "jsonl", "report")
# The sources that commands use for the questions they are given: a file, or a known data set.
FILE_SOURCE = "file"
DATASET_SOURCE = "dataset"
