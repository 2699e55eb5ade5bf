"""The command ``inspector``: one file a sub-command, each with ``add_arguments`` and ``run``.

``main.py`` lists them and turns errors into exit codes. Shared by several: ``arguments.py`` (types
and groups of arguments), ``output.py`` (tables, a line a verdict, pictures in a folder),
``recorded.py`` (a journal on disk). Only ``collect`` needs ``album.py`` and ``picker.py``.
"""
