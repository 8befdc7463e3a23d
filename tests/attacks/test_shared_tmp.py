"""Names that can be known beforehand in the folder that all accounts share."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys

from tests.attacks.peers.other_account import as_nobody, needs_root, public_folder
from tests.support.waiting import PATIENCE_S

TRAIN = "from tests.support.small import small_fit; small_fit(); print('trained')"


@needs_root
def test_another_account_that_takes_torchs_name_first_stops_no_training():
    with public_folder() as shared:
        shared.chmod(0o1777)
        name = str(shared / f"torchinductor_{getpass.getuser()}")
        assert as_nobody("import sys; open(sys.argv[1], 'x')", name).returncode == 0
        environment = {**os.environ, "TMPDIR": str(shared)}
        environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", TRAIN],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.stdout == "trained\n", done.stderr
        assert [path.name for path in shared.iterdir()] == [f"torchinductor_{getpass.getuser()}"]
