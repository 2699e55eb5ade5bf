"""What a station promises, and whether it holds while the promise is attacked.

``rows.py`` lists the promises and ``__main__.py`` runs them; the other modules inject the faults.
``lab.py`` has what these share, ``peers.py`` the processes that surround a station.
"""
