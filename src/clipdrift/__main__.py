"""`python -m clipdrift`: the same as the command `clipdrift`."""

import os
import sys

# -m puts the working directory first on the path: no code that lies there is to be run.
if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]

from clipdrift.cli import main

main()
