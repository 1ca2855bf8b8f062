"""Medical-imaging machine learning from the scanner to the bedside."""
