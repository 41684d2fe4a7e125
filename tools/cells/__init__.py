"""Recorded cells of other systems, replayed here: outputs, states and gradients."""
