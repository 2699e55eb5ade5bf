"""Pixels: one geometry for both wings, pictures in and out, heatmaps for people."""
