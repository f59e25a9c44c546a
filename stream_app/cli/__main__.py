"""`python -m stream_app.cli`: the command `shunt` where its script is not on the path."""

import sys

from stream_app.cli import main

sys.exit(main())
