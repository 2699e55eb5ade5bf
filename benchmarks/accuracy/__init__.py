"""How well defects are told from good parts, and what changes it.

``__main__.py`` runs the table: ``plan.py`` makes cells of the options, ``cells.py`` measures and
keeps them, ``report.py`` writes table and picture. The methods are listed in ``methods.py``:
ours, the authors' (``authors.py``) and rivals (``rivals.py``), all fitted on good parts as
``fitting.py`` hands them out; what papers report stands in ``literature.py``. ``families.py``
varies the simulator's parts one property at a time. ``teach_in.py``, ``photos_to_verdicts.py`` and
``head_cost.py`` are benchmarks of their own, too.
"""
