"""How much memory a train step keeps for its backward pass, predicted from the graph; no TensorFlow."""
