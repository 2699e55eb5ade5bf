"""``python -m inspector``: the command ``inspector``."""

import sys

from inspector.cli.main import main

sys.exit(main())
