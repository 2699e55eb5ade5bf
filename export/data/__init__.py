"""Photos: data sets on disk, and synthetic defects."""
