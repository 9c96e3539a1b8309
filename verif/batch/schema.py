"""The tables of a store of batches, one SQLite file.

| table | column | meaning |
|---|---|---|
| `instances` | `key` | SHA-256 of what was asked: the models', the property's and the settings' contents |
| | `state` | `open`, `running` (claimed by the run `run`) or `done` |
| | `verdict`, `reason` | holds, violated, unknown, timeout or error, and why where it is none of the first two |
| | `bound`, `share` | worst bound at the end, share of the input set proved (0 to 1); NULL where not known |
| | `domains`, `strategy` | sub-problems bounded, and the search that decided |
| | `start_seconds` | start of the worker, where this instance was its first; else 0 |
| | `search_seconds`, `seconds` | of the search alone; of the whole instance, reading of files included |
| | `peak_bytes` | largest resident memory of the process that decided it |
| | `timeout` | seconds it was given |
| | `settings` | JSON: strategy, device, seed, memory; for a sample of a dataset `around`: index, eps, norm, clip;
| | | of a job's other questions `steepness`, `rising` |
| | `hashes` | JSON: `models` (name to SHA-256) and `property` |
| | `counterexample` | .npz of all inputs and outputs by name, as `verify replay` reads it |
| | `inputs` | JSON: which names in it are inputs |
| | `middle` | .npz like it of the middle of the input set, or the sample, that was changed (schema 2) |
| | `proof` | path of the proof, "" where there is none |
| | `trace` | JSON: [seconds, worst bound, share, open, done] of the search, thinned out |
| | `widths` | JSON: [value, mean width of its interval] over the first boxes, layer by layer (schema 2) |
| | `tactic` | what the search began with (`verif/tactics.py`); NULL where there was no search (schema 3) |
| | `splits` | JSON: [value, entry, at, version] of the halvings that parts of it are made by (schema 4) |
| | `run` | the run that claimed or decided it |
| `asked` | `run`, `place`, `key` | which instances a run asked, in the order of its list |
| | `category`, `model`, `property` | how the list names them; `models` is JSON, name to file |
| `runs` | `run`, `started`, `ended` | number and time (seconds since 1970; `ended` NULL while it runs or was killed) |
| | `pid`, `command` | process, words of the command line |
| | `environment`, `versions` | JSON of the machine, JSON of the libraries |

Instances are keyed by content: a changed file is another instance, a renamed one is not. What a run shows are the
instances that it asked, whoever decided them. Parts of an instance are instances that no run asked.
"""

from __future__ import annotations

SCHEMA = 4
UPGRADE = {  # from each schema to the next
    1: "ALTER TABLE instances ADD COLUMN middle BLOB; ALTER TABLE instances ADD COLUMN widths TEXT;",
    2: "ALTER TABLE instances ADD COLUMN tactic TEXT;",
    3: "ALTER TABLE instances ADD COLUMN splits TEXT;",
}
TABLES = """
CREATE TABLE instances (key TEXT PRIMARY KEY, state TEXT NOT NULL, verdict TEXT, reason TEXT, bound REAL, share REAL,
  domains INTEGER, strategy TEXT, start_seconds REAL, search_seconds REAL, seconds REAL, peak_bytes INTEGER,
  timeout REAL, settings TEXT, hashes TEXT, counterexample BLOB, inputs TEXT, proof TEXT, trace TEXT, run INTEGER,
  middle BLOB, widths TEXT, tactic TEXT, splits TEXT);
CREATE TABLE asked (run INTEGER, place INTEGER, key TEXT NOT NULL, category TEXT, model TEXT, property TEXT,
  models TEXT, PRIMARY KEY (run, place));
CREATE TABLE runs (run INTEGER PRIMARY KEY, started REAL, ended REAL, pid INTEGER, command TEXT, environment TEXT,
  versions TEXT);
"""
