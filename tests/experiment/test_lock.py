# SPDX-License-Identifier: Apache-2.0
"""Two processes never run in one directory."""

import subprocess
import sys
from pathlib import Path

import pytest

from trustformer.errors import ConfigError
from trustformer.experiment.record import RunDirectory


def test_a_directory_in_use_by_another_process_is_refused_until_that_ends(tmp_path: Path) -> None:
    script = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print('locked', flush=True); input()"
    command = [sys.executable, "-c", script, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match="another process runs here"), RunDirectory(tmp_path).locked():
            pass
        other.kill()
    with RunDirectory(tmp_path).locked():
        pass
