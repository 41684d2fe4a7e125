"""From a network dict to a per-step graph."""
