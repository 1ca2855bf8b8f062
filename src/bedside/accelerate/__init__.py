"""What happens to a model after training: faster forms, each compared with the reference before it may be used."""
