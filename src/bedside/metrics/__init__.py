"""Numbers: what a segmentation is worth, how sure we are, and whether it may replace another."""
