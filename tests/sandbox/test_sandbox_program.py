"""Why a program does not start, in words (R02)."""

import json
import os
import struct

import pytest

from kpy.sandbox.program import CannotStart, execute


def failure(tmp_path, name, content=None, mode=0o755, path=None):
    if content is not None:
        (tmp_path / "p").write_bytes(content)
        (tmp_path / "p").chmod(mode)
    env = [b"PATH=" + (path if path is not None else os.fsencode(tmp_path))]
    text, status = executed([name], env)
    return text.replace(str(tmp_path), "DIR"), status


def executed(argv, env):
    """Why it failed, from a process of its own: what does start would take the place of pytest."""
    read, write = os.pipe()
    with os.fdopen(read) as report:
        pid = os.fork()
        if pid == 0:
            try:
                execute(argv, env)
            except CannotStart as error:
                os.write(write, json.dumps((error.text, error.status)).encode())
            finally:
                os._exit(0)
        os.close(write)
        told = report.read()
    os.waitpid(pid, 0)
    assert told, "it was started"
    return json.loads(told)


def elf(interpreter=b"", machine=62, padding=0):
    head = b"\x7fELF\x02\x01\x01" + bytes(8) + bytes([padding]) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(interpreter) + 1, 0, 1)
    return head + segment + interpreter + b"\0"


def test_not_found(tmp_path):
    assert failure(tmp_path, b"p") == ('exec: "p": executable file not found in $PATH', 127)
    assert failure(tmp_path, b"p", path=b"") == ('exec: "p": executable file not found in $PATH', 127)
    assert failure(tmp_path, b"/no/such") == ('exec: "/no/such": stat /no/such: no such file or directory', 127)
    assert failure(tmp_path, b"\xff") == ('exec: "\udcff": executable file not found in $PATH', 127)


def test_interpreters(tmp_path):
    text, status = failure(tmp_path, b"p", b"#!/no/such/sh -e\nx")
    assert (text, status) == ('exec: "p": its interpreter /no/such/sh is not in the image', 127)
    text, _ = failure(tmp_path, b"p", b"#!/bin/sh\r\nx")
    assert "interpreter /bin/sh" in text
    text, status = failure(tmp_path, b"p", elf(b"/lib/ld-none.so"))
    assert (text, status) == ('exec: "p": its interpreter /lib/ld-none.so is not in the image', 127)


@pytest.mark.parametrize("content", [b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 100, elf()[:90], b"", b"MZ"])
def test_no_program(tmp_path, content):
    text, status = failure(tmp_path, b"p", content)
    assert text.startswith('exec: "p": ')
    assert status in (126, 127)


def test_other_machine(tmp_path):
    machine, name = (183, "arm64") if os.uname().machine == "x86_64" else (62, "amd64")
    # The padding: programs for other machines may well run here (binfmt_misc, QEMU), but no handler takes this one.
    text, status = failure(tmp_path, b"p", elf(b"/x", machine, padding=1))
    assert (text, status) == (f'exec: "p": exec format error: it is a program for {name}', 126)


def test_directory(tmp_path):
    assert failure(tmp_path, os.fsencode(tmp_path)) == ('exec: "DIR": is a directory', 126)
