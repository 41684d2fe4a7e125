"""What `rnn.py verify` is made of: a comparison of both compilations on random batches, and a search for the smallest
network that differs."""
