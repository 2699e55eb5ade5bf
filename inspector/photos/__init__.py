"""Photos of good parts for training: a folder that is filled, and what is wrong with a photo."""
