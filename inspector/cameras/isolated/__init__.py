"""A camera in a process of its own: its parent, the child, and the memory between them."""
