"""The passes: Graph → Graph, one a file, input never changed."""
