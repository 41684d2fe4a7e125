"""The command `rnn.py`: one verb a module."""
