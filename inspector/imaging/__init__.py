"""Pixels: the geometry that both wings share, pictures in and out, heatmaps for people."""
