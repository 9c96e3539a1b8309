"""The networks that a user gives for a query, by name, each loaded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graphs import Graph
from verif.errors import PropertyError, require_kind
from verif.query import Network, Source


@dataclass
class Networks:
    """Sources by name; `load` reads an ONNX file at most once."""

    sources: dict[str, Source]
    _loaded: dict[tuple[Path, tuple[str, ...]], Graph] = field(default_factory=dict)

    @classmethod
    def of(cls, networks: Source | Mapping[str, Source] | Sequence[tuple[str, Source]]) -> Networks:
        """From one network, a mapping, or a list of (name, source)."""
        if isinstance(networks, str | Path | Graph | Network):
            return cls({"": networks})
        kinds = "a network is an ONNX file, a graph, or verif.compile(module, x).network() of a torch module"
        require_kind(networks, (Mapping, Sequence), kinds)
        pairs = list(networks.items() if isinstance(networks, Mapping) else networks)
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise PropertyError(
                    "P109", f"network '{name}' is given twice", help=f"give one file: --network {name}=FILE.onnx"
                )
        return cls(dict(pairs))

    def all(self) -> list[Network]:
        """Every network under the name it was given."""
        return [self.load(name) for name in self.sources]

    def load(self, name: str, rename: str | None = None, keep: tuple[str, ...] = ()) -> Network:
        """The network given as `name`, called `rename`; values named in `keep` are its further outputs."""
        source = self.sources[name]
        called = name if rename is None else rename
        if isinstance(source, Network):
            return Network(called, source.graph, source.source)
        if isinstance(source, Graph):
            return Network(called, source, None)
        from graphs.onnx import load

        path = Path(source)
        if (path, keep) not in self._loaded:
            self._loaded[path, keep] = load(path, keep=keep)
        return Network(called, self._loaded[path, keep], path)
