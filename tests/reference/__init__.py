"""The NumPy reference interpreter: a second, independent meaning of every primitive.

Slow and plain: named arrays, lengths as named arrays, padding filled with NaN (or a wild number) after every primitive,
so that whatever lets padding through shows. What works along sequences is written for one sequence without padding
(`sequences.py`). A family of primitives a file, as in `returnn_lite.ir.ops`.
"""
