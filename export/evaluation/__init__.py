"""How good a trained model is, in figures, charts and a report."""
