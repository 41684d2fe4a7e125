"""The layers: one class each, a macro from typed options to primitives."""
