"""``python -m aeverse`` is the command `aeverse`."""

import sys

from aeverse.cli import main

sys.exit(main())
