"""Which layers, tensors and tokens of two models face each other."""
