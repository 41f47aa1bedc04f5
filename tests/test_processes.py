"""Two processes that each have half of the devices train as one that has them all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import training


pytestmark = [pytest.mark.newest_jax, pytest.mark.beyond_core]


SECONDS = 180


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_two_processes_train_as_one():
    """Rows and classes are split between them: jax.distributed over loopback."""
    address = f"127.0.0.1:{free_port()}"
    script = str(Path(training.__file__))
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=4")
    processes = [
        subprocess.Popen(
            [sys.executable, script, address, str(i)],
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        wanted = training.train()
        for process in processes:
            out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, err
            losses = json.loads(out.splitlines()[-1])  # the first are of gloo
            np.testing.assert_allclose(losses, wanted, rtol=1e-6)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert wanted[-1] < wanted[0]
