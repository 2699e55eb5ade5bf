"""From photos of good parts to a trained model with its limit."""
