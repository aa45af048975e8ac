"""`python -m lcmae_core.cli` is `lcmae`."""

import sys

from lcmae_core.cli.main import main

sys.exit(main())
