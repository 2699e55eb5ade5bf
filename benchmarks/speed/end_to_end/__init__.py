"""From the trigger to the verdict in another process: run as a module, see ``__main__.py``."""
