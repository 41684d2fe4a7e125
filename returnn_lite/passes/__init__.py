"""The passes: Graph → Graph, one a file, input never changed. Their order is the table in `pipeline.py`.

`loops`, `hypotheses` and `rules` are no passes, but what passes are made of.
"""
