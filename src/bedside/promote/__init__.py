"""Whether a model may go into production, and who is there now."""
