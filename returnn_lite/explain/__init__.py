"""Where each layer of a network is computed, why, and what this looks like: behind `explain`, `graph` and `check`."""
