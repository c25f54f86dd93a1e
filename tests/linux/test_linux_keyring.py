"""Leaving the session keyring of who started us."""

import errno
import os
from collections.abc import Callable

import pytest

from kpy.linux import keyring, libc, syscalls

_ADD_KEY = {"x86_64": 248, "aarch64": 217}
_SEARCH, _SESSION = 10, -3


def _in_a_fork(function: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _find(arch: syscalls.Arch) -> int:
    try:
        libc.syscall(arch.numbers["keyctl"], "keyctl", _SEARCH, _SESSION, b"user", b"kpy-test", 0)
    except OSError as error:
        return error.errno or 254
    return 0


def test_keys_of_before_are_not_found_any_more() -> None:
    arch = syscalls.native()
    assert arch is not None

    def before() -> int:
        keyring.leave(arch)
        try:
            libc.syscall(_ADD_KEY[arch.name], "add_key", b"user", b"kpy-test", b"secret", 6, _SESSION)
        except OSError as error:
            return error.errno or 254
        return _find(arch)

    def after() -> int:
        assert before() == 0
        keyring.leave(arch)
        return _find(arch)

    found = _in_a_fork(before)
    if found:  # a container's filter: nobody has keys, and that is no error
        assert found in (errno.EPERM, errno.ENOSYS)
    else:
        assert _in_a_fork(after) == errno.ENOKEY


@pytest.mark.parametrize(("join", "ask", "fails"), [("EPERM", "EPERM", False), ("ENOSYS", "ENOSYS", False), ("EPERM", "", True), ("EDQUOT", "", True)])
def test_what_refuses_the_one_operation_is_an_error(monkeypatch: pytest.MonkeyPatch, join: str, ask: str, fails: bool) -> None:
    """And what forbids the whole call is none."""

    def refused(number: int, call: str, operation: int, *rest: object) -> int:
        name = join if operation == 1 else ask
        if name:
            raise OSError(getattr(errno, name), name)
        return 1

    monkeypatch.setattr(libc, "syscall", refused)
    if fails:
        with pytest.raises(OSError, match=join):
            keyring.leave(syscalls.X86_64)
    else:
        keyring.leave(syscalls.X86_64)
