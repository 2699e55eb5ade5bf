"""The command ``inspector-model``: one file a sub-command, each with ``add_arguments`` and ``run``.

``main.py`` lists them and turns errors into exit codes. Several share ``arguments.py`` (the
settings that a command line gives, and groups of arguments) and ``screen.py`` (progress in plain
words, and the limit as it is told). ``collect`` is the station's, ``inspector/cli/collect.py``.
What needs PyTorch is imported where a command runs, so that ``--help`` works on a station.
"""
