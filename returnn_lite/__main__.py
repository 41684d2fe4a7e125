"""``python -m returnn_lite`` is the same as the command ``rnn.py``."""

import sys

from returnn_lite.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
