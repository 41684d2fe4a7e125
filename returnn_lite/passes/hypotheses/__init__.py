"""What differs from hypothesis to hypothesis: in which order a node is computed, and which lengths."""
