"""Tests that only root can do. On a developer's machine they are left out for others; on CI they run, and fail for want of rights."""

import os
from pathlib import Path

import pytest

ON_CI = os.environ.get("CI") == "true"
needs_root = pytest.mark.skipif(os.geteuid() != 0 and not ON_CI, reason="only root can do this")


def make_device(path: Path) -> None:
    """A character device, which a container may refuse to its root: the test is left out then, but not on CI."""
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))
    except PermissionError:
        if ON_CI:
            raise
        pytest.skip("no devices can be made here")
