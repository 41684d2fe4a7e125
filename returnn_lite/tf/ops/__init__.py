"""The lowerings of the primitives, in the same nine families as `returnn_lite.ir.ops`."""
