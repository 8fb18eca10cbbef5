"""The tables of a run's database. Records are JSON in a column `data`; the other columns are for
people who query."""

# Step N takes a database from schema version N to N + 1; append, never edit.
MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE sessions (
        id INTEGER PRIMARY KEY, started REAL NOT NULL, versions TEXT NOT NULL) STRICT;
    CREATE TABLE completions (
        key TEXT NOT NULL, sample INTEGER NOT NULL,
        session INTEGER NOT NULL REFERENCES sessions (id),
        step TEXT NOT NULL, text TEXT NOT NULL, data TEXT NOT NULL,
        PRIMARY KEY (key, sample)) STRICT;
    CREATE TABLE rounds (number INTEGER PRIMARY KEY, ended REAL NOT NULL, adapter TEXT) STRICT;
    CREATE TABLE attempts (
        id INTEGER PRIMARY KEY, round INTEGER NOT NULL REFERENCES rounds (number),
        position INTEGER NOT NULL, question TEXT NOT NULL, source TEXT NOT NULL,
        answer TEXT NOT NULL, decision TEXT NOT NULL, confidence REAL, reason TEXT NOT NULL,
        data TEXT NOT NULL, UNIQUE (round, position)) STRICT;
    CREATE TABLE verdicts (
        attempt INTEGER NOT NULL REFERENCES attempts (id), verifier TEXT NOT NULL,
        candidate TEXT NOT NULL, confidence REAL, reason TEXT NOT NULL) STRICT;
    CREATE TABLE failures (
        round INTEGER NOT NULL, attempt INTEGER REFERENCES attempts (id), step TEXT NOT NULL,
        component TEXT NOT NULL, type TEXT NOT NULL, message TEXT NOT NULL) STRICT;
    CREATE VIEW beliefs AS
        SELECT id AS attempt, round, question, answer, confidence FROM attempts
        WHERE decision = 'belief';
    """,
    """
    CREATE TABLE readings (
        key TEXT PRIMARY KEY, session INTEGER NOT NULL REFERENCES sessions (id),
        step TEXT NOT NULL, data BLOB NOT NULL) STRICT;
    """,
    """
    ALTER TABLE verdicts RENAME COLUMN verifier TO detector;
    """,
)
