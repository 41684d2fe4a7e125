"""Parts of the passes that make loops of loops: which vertices of a body stay together, and what becomes of them."""
