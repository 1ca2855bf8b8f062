"""What runs a model: weights in, a function from windows to outputs out."""
