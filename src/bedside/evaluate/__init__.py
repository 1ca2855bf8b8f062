"""Scores of a model on cases it has not seen, and the report that people open."""
