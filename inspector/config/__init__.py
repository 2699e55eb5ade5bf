"""The station file: its keys, and how a file is read or refused."""
