"""The simulated conveyor and its parts, and a camera that fails by a script."""
