"""The station file: what its keys mean, and how it is read and refused."""
