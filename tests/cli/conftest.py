"""A terminal in memory."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kpy.cli.terminal import Terminal


@pytest.fixture
def make_terminal(tmp_path: Path) -> Callable[..., Terminal]:
    def make(**changes: Any) -> Terminal:
        plain = Terminal(io.BytesIO(), io.BytesIO(), io.BytesIO(), {}, str(tmp_path))
        return replace(plain, **changes)

    return make


@pytest.fixture
def terminal(make_terminal: Callable[..., Terminal]) -> Terminal:
    return make_terminal()
