"""What is computed: the intermediate representation, its op table, importers and rewriting passes."""

from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError as GraphError, UnsupportedError as UnsupportedError, VerifError as VerifError

if TYPE_CHECKING:
    from graphs.ir import Graph as Graph, GraphBuilder as GraphBuilder, Node as Node


def __getattr__(name: str) -> Any:
    # The errors must be importable in milliseconds (a usage error of the CLI), the graph needs torch.
    if name in ("Graph", "GraphBuilder", "Node"):
        from graphs import ir

        return getattr(ir, name)
    raise AttributeError(f"module 'graphs' has no attribute '{name}'")
