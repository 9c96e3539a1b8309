"""What is computed: the intermediate representation, its op table, importers and rewriting passes."""

from graphs.errors import GraphError as GraphError, UnsupportedError as UnsupportedError, VerifError as VerifError
from graphs.ir import Graph as Graph, GraphBuilder as GraphBuilder, Node as Node
