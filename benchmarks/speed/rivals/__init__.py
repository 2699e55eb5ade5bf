"""Our exported models against those that other packages deploy: run as a module.

``plan.py`` lists what is timed; ``environments.py`` has each package installed and its models made
(by ``make.py``, within its environment); ``turns.py`` times them, each in a ``worker.py``;
``report.py`` compares. ``make.py`` and ``worker.py`` run where this checkout's requirements are
not installed: they import nothing of ours unless the model is ours.
"""
