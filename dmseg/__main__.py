"""``python -m dmseg`` is ``dmseg``."""

import sys

from dmseg.cli.main import main

sys.exit(main())
