"""One torch thread in every test: several are slower where cores are few or busy."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
