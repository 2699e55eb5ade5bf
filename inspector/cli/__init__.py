"""The command ``inspector``: one file a sub-command, each with ``add_arguments`` and ``run``.

``main.py`` lists them and turns errors into exit codes. Several share ``arguments.py`` (types and
groups of arguments), ``tables.py``, ``output.py`` (a line a verdict, pictures in a folder) and
``recorded.py`` (a journal on disk). Only ``tune`` uses ``engine_trials.py``; only ``collect`` uses
``photo_source.py``, ``region.py``, ``picker.py``, ``album.py`` and ``photo_check.py``.
"""
