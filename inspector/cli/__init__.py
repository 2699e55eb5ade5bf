"""The command ``inspector``: one file a sub-command, each with ``add_arguments`` and ``run``.

``main.py`` lists them and turns errors into exit codes. Several share ``arguments.py`` (types and
groups of arguments), ``output.py`` (a line a verdict, pictures in a folder) and ``recorded.py`` (a
journal on disk); tables come from ``inspector/tables.py``. ``init`` and ``collect`` find the camera
that CAMERA names by ``photo_source.py``; ``init`` and ``demo`` find the example files by
``examples.py``. Only ``tune`` uses ``engine_trials.py``; only ``collect`` uses ``region.py``,
``picker.py``, ``album.py`` and ``photo_check.py``.
"""
