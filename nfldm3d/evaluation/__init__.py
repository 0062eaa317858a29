"""How good pictures, scenes and generators are: metrics on tensors below, whole reports above."""
