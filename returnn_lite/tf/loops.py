"""Loops."""
def lower_loop(context, op, environment, lower_nodes):
    raise NotImplementedError
