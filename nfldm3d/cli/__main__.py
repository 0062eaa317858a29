"""``python -m nfldm3d.cli``: the same as the command ``nfldm3d``."""

import sys

from nfldm3d.cli import main

sys.exit(main())
