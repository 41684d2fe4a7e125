"""The NumPy reference interpreter: a second, independent meaning of every primitive.

Slow and plain: named arrays, lengths as named arrays, padding filled with NaN (or a wild number) after every
primitive, so that
whatever lets padding through shows.
"""
