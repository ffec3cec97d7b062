-- Schema 1. Once released, this file is never edited: a change is a new migration.

-- What was recorded, in order. `digest` covers the row and, through `prev`, every row before it.
CREATE TABLE entry (
    seq    INTEGER PRIMARY KEY CHECK (seq > 0),
    kind   TEXT NOT NULL,
    at     TEXT NOT NULL,
    prev   BLOB NOT NULL CHECK (length(prev) = 32),
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    body   BLOB NOT NULL
) STRICT;

-- What results rest on, by its digest.
CREATE TABLE evidence (
    digest     TEXT PRIMARY KEY,
    length     INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    encoding   TEXT NOT NULL CHECK (encoding IN ('identity', 'deflate')),
    bytes      BLOB NOT NULL
) STRICT;

-- The tables from here on are made from the entries, for queries.
CREATE TABLE profile (
    seq      INTEGER PRIMARY KEY REFERENCES entry (seq),
    digest   TEXT NOT NULL UNIQUE,
    name     TEXT NOT NULL,
    version  TEXT NOT NULL,
    controls INTEGER NOT NULL
) STRICT;

CREATE TABLE run (
    seq      INTEGER PRIMARY KEY REFERENCES entry (seq),
    run      TEXT NOT NULL UNIQUE,
    started  TEXT NOT NULL,
    expected INTEGER NOT NULL,
    series   TEXT NOT NULL
) STRICT;
CREATE INDEX run_by_series ON run (series, seq);

CREATE TABLE run_end (
    seq   INTEGER PRIMARY KEY REFERENCES entry (seq),
    run   TEXT NOT NULL UNIQUE REFERENCES run (run),
    how   TEXT NOT NULL,
    ended TEXT NOT NULL
) STRICT;

CREATE TABLE task (
    seq             INTEGER PRIMARY KEY REFERENCES entry (seq),
    run             TEXT NOT NULL REFERENCES run (run),
    target          TEXT NOT NULL,
    kind            TEXT NOT NULL,
    engine          TEXT NOT NULL,
    profile         TEXT NOT NULL,
    profile_version TEXT NOT NULL,
    profile_digest  TEXT NOT NULL REFERENCES profile (digest),
    started         TEXT NOT NULL,
    finished        TEXT NOT NULL,
    expected        INTEGER NOT NULL,
    passed          INTEGER NOT NULL,
    failed          INTEGER NOT NULL,
    not_applicable  INTEGER NOT NULL,
    waived          INTEGER NOT NULL,
    not_evaluated   INTEGER NOT NULL,
    UNIQUE (run, target, engine, profile_digest),
    CHECK (expected = passed + failed + not_applicable + waived + not_evaluated)
) STRICT;
CREATE INDEX task_by_target ON task (target, engine, profile, seq);

CREATE TABLE finding (
    seq     INTEGER NOT NULL REFERENCES task (seq),
    ordinal INTEGER NOT NULL,
    control TEXT NOT NULL,
    status  TEXT NOT NULL,
    reason  TEXT,
    PRIMARY KEY (seq, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE task_evidence (
    seq     INTEGER NOT NULL REFERENCES task (seq),
    ordinal INTEGER NOT NULL,
    name    TEXT NOT NULL,
    digest  TEXT NOT NULL REFERENCES evidence (digest),
    PRIMARY KEY (seq, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_evidence_by_digest ON task_evidence (digest);

CREATE TABLE event (
    seq     INTEGER PRIMARY KEY REFERENCES entry (seq),
    what    TEXT NOT NULL,
    subject TEXT NOT NULL
) STRICT;

-- Nothing here is ever changed or removed.
CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER evidence_no_update BEFORE UPDATE ON evidence
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER evidence_no_delete BEFORE DELETE ON evidence
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER profile_no_update BEFORE UPDATE ON profile
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER profile_no_delete BEFORE DELETE ON profile
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER run_no_update BEFORE UPDATE ON run
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER run_no_delete BEFORE DELETE ON run
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER run_end_no_update BEFORE UPDATE ON run_end
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER run_end_no_delete BEFORE DELETE ON run_end
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER task_no_update BEFORE UPDATE ON task
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER task_no_delete BEFORE DELETE ON task
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER finding_no_update BEFORE UPDATE ON finding
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER finding_no_delete BEFORE DELETE ON finding
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER task_evidence_no_update BEFORE UPDATE ON task_evidence
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER task_evidence_no_delete BEFORE DELETE ON task_evidence
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER event_no_update BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER event_no_delete BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
