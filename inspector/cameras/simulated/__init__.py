"""Cameras of no device: a conveyor that draws its parts, and one that fails by a script."""
