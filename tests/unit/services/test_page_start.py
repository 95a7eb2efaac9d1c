"""What a page server loads before it answers."""

from __future__ import annotations

import subprocess
import sys


def test_a_start_does_not_wait_for_what_only_base_backups_need() -> None:
    code = "import sys, pagestore.services.page as page; print('numpy' in sys.modules); "
    code += "page._load_the_rest(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
