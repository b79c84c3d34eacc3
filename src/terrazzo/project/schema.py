"""The tables of a project's file, and how an older file becomes a newer one.

A new file is an empty one brought up to date: STEPS are taken in order, all that are missing in one transaction, and
the number of the last is the file's format version (SQLite's user_version). A step that was published is never edited.
What is addressed by its content, and releases, cannot be changed by any SQL: triggers refuse.
"""

APPLICATION = 0x54525A4F  # "TRZO", by which SQLite files say whose they are

_FIRST = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE categories (
  id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 65535),
  name TEXT NOT NULL,
  color TEXT NOT NULL,
  has_instances INTEGER NOT NULL,
  is_ignore INTEGER NOT NULL,
  attributes TEXT NOT NULL,
  merged_into INTEGER REFERENCES categories (id),
  is_deleted INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX category_names ON categories (name) WHERE NOT is_deleted;

CREATE TABLE samples (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  path TEXT NOT NULL UNIQUE,
  sha256 TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  height INTEGER NOT NULL,
  width INTEGER NOT NULL,
  orientation INTEGER NOT NULL,
  split TEXT,
  status TEXT NOT NULL DEFAULT 'todo',
  reason TEXT,
  author TEXT,
  head INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX sample_statuses ON samples (status, name);

CREATE TABLE tiles (hash BLOB PRIMARY KEY, data BLOB NOT NULL, counts BLOB NOT NULL) STRICT;
CREATE TABLE documents (hash BLOB PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE trees (
  hash BLOB PRIMARY KEY,
  height INTEGER NOT NULL,
  width INTEGER NOT NULL,
  tiles BLOB NOT NULL,
  document BLOB NOT NULL REFERENCES documents (hash)
) STRICT;

CREATE TABLE revisions (
  sample INTEGER NOT NULL REFERENCES samples (id),
  number INTEGER NOT NULL CHECK (number > 0),
  parent INTEGER NOT NULL,
  tree BLOB NOT NULL REFERENCES trees (hash),
  kind TEXT NOT NULL,
  tool TEXT NOT NULL,
  author TEXT,
  ms INTEGER NOT NULL,
  at TEXT NOT NULL,
  undo_to INTEGER,
  redo_to INTEGER,
  PRIMARY KEY (sample, number)
) STRICT;

CREATE TABLE operations (
  client TEXT NOT NULL,
  seq INTEGER NOT NULL,
  digest BLOB NOT NULL,
  sample INTEGER NOT NULL REFERENCES samples (id),
  revision INTEGER NOT NULL,
  current INTEGER NOT NULL,
  is_refused INTEGER NOT NULL,
  PRIMARY KEY (client, seq)
) STRICT;

CREATE TABLE leases (
  sample INTEGER PRIMARY KEY REFERENCES samples (id),
  client TEXT NOT NULL,
  author TEXT,
  until REAL NOT NULL
) STRICT;

CREATE TABLE issues (
  id INTEGER PRIMARY KEY,
  sample INTEGER NOT NULL REFERENCES samples (id),
  x INTEGER NOT NULL,
  y INTEGER NOT NULL,
  resolved_at TEXT,
  resolved_by TEXT
) STRICT;
CREATE INDEX issues_of_samples ON issues (sample);
CREATE TABLE comments (
  id INTEGER PRIMARY KEY,
  issue INTEGER NOT NULL REFERENCES issues (id),
  author TEXT,
  text TEXT NOT NULL,
  at TEXT NOT NULL
) STRICT;
CREATE INDEX comments_of_issues ON comments (issue);

CREATE TABLE predictions (
  labelset TEXT NOT NULL,
  sample INTEGER NOT NULL REFERENCES samples (id),
  categories BLOB NOT NULL,
  confidence BLOB NOT NULL,
  hash BLOB NOT NULL,
  at TEXT NOT NULL,
  PRIMARY KEY (labelset, sample)
) STRICT;

CREATE TABLE releases (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  parent TEXT REFERENCES releases (id),
  manifest BLOB NOT NULL,
  at TEXT NOT NULL
) STRICT;

CREATE TABLE audit (
  id INTEGER PRIMARY KEY,
  at TEXT NOT NULL,
  author TEXT,
  action TEXT NOT NULL,
  sample INTEGER,
  detail TEXT NOT NULL
) STRICT;

CREATE TRIGGER releases_stay BEFORE UPDATE ON releases BEGIN SELECT RAISE (ABORT, 'a release cannot be changed'); END;
CREATE TRIGGER releases_last BEFORE DELETE ON releases BEGIN SELECT RAISE (ABORT, 'a release cannot be removed'); END;
CREATE TRIGGER revisions_stay BEFORE UPDATE ON revisions BEGIN SELECT RAISE (ABORT, 'history cannot be changed'); END;
CREATE TRIGGER revisions_last BEFORE DELETE ON revisions BEGIN SELECT RAISE (ABORT, 'history cannot be removed'); END;
CREATE TRIGGER trees_stay BEFORE UPDATE ON trees BEGIN SELECT RAISE (ABORT, 'history cannot be changed'); END;
CREATE TRIGGER tiles_last BEFORE DELETE ON tiles BEGIN SELECT RAISE (ABORT, 'history cannot be removed'); END;
"""

_MODELS = """
CREATE TABLE models (
  hash TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  path TEXT NOT NULL,
  classes TEXT NOT NULL,
  mapping TEXT NOT NULL,
  report TEXT,
  at TEXT NOT NULL,
  is_detached INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE measures (
  labelset TEXT NOT NULL,
  sample INTEGER NOT NULL REFERENCES samples (id),
  revision INTEGER NOT NULL,
  against TEXT,
  numbers TEXT NOT NULL,
  features BLOB,
  PRIMARY KEY (labelset, sample)
) STRICT;

CREATE TABLE disagreements (
  labelset TEXT NOT NULL,
  sample INTEGER NOT NULL REFERENCES samples (id),
  x INTEGER NOT NULL,
  y INTEGER NOT NULL,
  "left" INTEGER NOT NULL,
  width INTEGER NOT NULL,
  height INTEGER NOT NULL,
  pixels INTEGER NOT NULL,
  label INTEGER NOT NULL,
  predicted INTEGER NOT NULL,
  confidence REAL NOT NULL,
  verdict TEXT,
  PRIMARY KEY (labelset, sample, x, y, label, predicted)
) STRICT;
CREATE INDEX disagreements_by_weight ON disagreements (labelset, pixels * confidence);

CREATE TABLE queue (
  labelset TEXT NOT NULL,
  ordering TEXT NOT NULL,
  sample INTEGER NOT NULL REFERENCES samples (id),
  place INTEGER NOT NULL,
  score REAL NOT NULL,
  why TEXT NOT NULL,
  is_random INTEGER NOT NULL,
  PRIMARY KEY (labelset, ordering, sample)
) STRICT;
CREATE INDEX queue_places ON queue (labelset, ordering, place);
"""

_SERVED = """
CREATE TABLE held (sample INTEGER PRIMARY KEY REFERENCES samples (id), revision INTEGER NOT NULL) STRICT;
CREATE TABLE holdings (
  sample INTEGER NOT NULL REFERENCES samples (id),
  category INTEGER NOT NULL,
  pixels INTEGER NOT NULL,
  PRIMARY KEY (sample, category)
) STRICT;
CREATE INDEX holdings_of_categories ON holdings (category);

CREATE TABLE withdrawals (
  release TEXT PRIMARY KEY REFERENCES releases (id),
  reason TEXT NOT NULL,
  author TEXT,
  at TEXT NOT NULL
) STRICT;
CREATE TRIGGER withdrawals_stay BEFORE UPDATE ON withdrawals BEGIN SELECT RAISE (ABORT, 'a withdrawal stays'); END;
CREATE TRIGGER withdrawals_last BEFORE DELETE ON withdrawals BEGIN SELECT RAISE (ABORT, 'a withdrawal stays'); END;
"""

STEPS: tuple[str, ...] = (_FIRST, _MODELS, _SERVED)
VERSION = len(STEPS)
