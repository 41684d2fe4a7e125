"""The primitives, in ten families: sources, elementwise, gradients, contraction, reduction, indexing, axes,
recurrence, search, losses."""
