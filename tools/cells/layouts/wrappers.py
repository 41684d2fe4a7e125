"""Cells around others."""

from tools.cells.layouts.layout import Layout

LAYOUTS = {
    ("tf", "MultiRNNCell"): Layout((), inner="cells", inner_scope=lambda i: f"cell_{i}"),
    ("tf", "ResidualWrapper"): Layout((), inner="cell"),
}
