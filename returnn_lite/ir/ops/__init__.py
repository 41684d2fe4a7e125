"""The primitives, in nine families: sources, elementwise, contraction, reduction, indexing, axes, recurrence,
search, losses."""
