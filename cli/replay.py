"""`verify replay`: a saved counterexample, run again in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cli import files
from cli.decide import importing
from verif.verdict import Verdict


def replay_file(networks: Path | Mapping[str, Path], property: Path, saved: Path) -> int:
    """Exit code 1 where the saved point violates the property, 3 where it does not."""
    models = [networks] if isinstance(networks, Path) else list(networks.values())
    for path in (*models, property, saved):
        files.require(path)
    with importing():
        from verif import counterexample
        from verif.query import compile_query
        from verif.replay import replay
    from cli import report

    query = compile_query(property, networks)
    seen = replay(query, counterexample.read(saved, query))
    if seen.violated:
        print("VIOLATED  the models' own runtime confirms the counterexample")
    else:
        print(f"NOT A COUNTEREXAMPLE  {seen.reason}")
    print("\n".join(report.arrays(seen.inputs, seen.outputs)), flush=True)
    return Verdict.VIOLATED.exit_code if seen.violated else Verdict.UNKNOWN.exit_code
