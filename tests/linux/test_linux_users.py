"""USER and --chown against hostile passwd and group files (R03, R04, C08)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.errors import SandboxError
from kpy.linux.users import Identity, home_of, lookup_owner, lookup_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
app:x:1000:1000:Application:/home/app:/bin/sh
other:x:1000:77::/home/other:/bin/sh
1234:x:5:5::/five:/bin/sh
"""
GROUP = b"root:x:0:\ndaemon:x:1:\naudio:x:29:app,daemon\nstaff:x:50:app\napp:x:1000:\n"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", Identity(0, 0)),
        ("root", Identity(0, 0)),
        ("root:root", Identity(0, 0)),
        ("app", Identity(1000, 1000, (29, 50))),
        ("1000", Identity(1000, 1000, (29, 50))),
        ("app:app", Identity(1000, 1000)),
        ("app:staff", Identity(1000, 50)),
        ("app:50", Identity(1000, 50)),
        ("1000:staff", Identity(1000, 50)),
        ("daemon", Identity(1, 1, (29,))),
        ("1042:1043", Identity(1042, 1043)),
        ("1042", Identity(1042, 0)),
        ("0:29", Identity(0, 29)),
        ("1234", Identity(1234, 0)),  # a number is an id, whoever has it as a name
        (":staff", Identity(0, 50)),
        ("app:", Identity(1000, 1000, (29, 50))),
    ],
)
def test_lookup_user(spec, expected):
    assert lookup_user(spec, PASSWD, GROUP) == expected


@pytest.mark.parametrize("passwd", [None, b"", b"\xff\xfe\0:::::", b":" * 1_000_000, b"nosuch:x:notanumber:0::/:/bin/sh"])
def test_unknown_names(passwd):
    with pytest.raises(SandboxError, match="unable to find user nosuch: no matching entries in passwd file"):
        lookup_user("nosuch", passwd, GROUP)
    with pytest.raises(SandboxError, match="unable to find group nosuch: no matching entries in group file"):
        lookup_user("0:nosuch", passwd, passwd)
    assert lookup_user("7", passwd, passwd) == Identity(7, 0)


@pytest.mark.parametrize("spec", ["2147483648", "0:2147483648", "99999999999999999999:1", "app:4294967295"])
def test_ids_out_of_range(spec):
    with pytest.raises(SandboxError, match="range"):
        lookup_user(spec, PASSWD, GROUP)
    with pytest.raises(SandboxError, match="range"):
        lookup_owner(spec, PASSWD, GROUP)


def test_odd_lines_are_passed_over():
    passwd = b"# root:x:1:1\n\n  \nroot\nroot:x\nroot:x:-1:0::/:\nroot:x:0x0:0\n" + b"a" * 70000 + b":x:5:5\n root:x:3:4::/r:\r\n"
    assert lookup_user("root", passwd, None) == Identity(3, 4)
    assert home_of(3, passwd) == "/r"
    with pytest.raises(SandboxError):
        lookup_user("a" * 70000, passwd, None)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [("1", (1, 1)), ("1:2", (1, 2)), ("1:staff", (1, 50)), ("app", (1000, 1000)), ("other", (1000, 77)),
     ("daemon:audio", (1, 29)), ("1001", (1001, 1001)), ("0", (0, 0)), (":5", (0, 5)),
     ("app:", (1000, 0)), ("5:", (5, 0)), (":staff", (0, 50)), ("app:root", (1000, 0)), ("root:staff", (0, 50))],
)  # fmt: skip
def test_lookup_owner(spec, expected):
    assert lookup_owner(spec, PASSWD, GROUP) == expected


def test_root_is_an_owner_that_needs_no_file():
    for passwd, group in ((None, None), (b"root:x:5:6::/:\n", b"root:x:7:\n")):
        for spec in ("root", "root:root", "0:root", ":root", "root:"):
            assert lookup_owner(spec, passwd, group) == (0, 0)


@pytest.mark.parametrize("files", [(PASSWD, GROUP), (None, None)])
def test_unknown_owners_are_errors(files):
    for spec in ("nosuch", "nosuch:0", "1:nosuch"):
        with pytest.raises(SandboxError, match="unable to find"):
            lookup_owner(spec, *files)


def test_home():
    assert home_of(0, PASSWD) == "/root"
    assert home_of(1000, PASSWD) == "/home/app"
    assert home_of(7, PASSWD) == "/"
    assert home_of(0, None) == "/"
    assert home_of(0, b"root:x:0:0") == "", "as runc: he is found, and has none"


@given(st.text(max_size=20), st.binary(max_size=200), st.binary(max_size=200))
def test_any_file_gives_an_identity_or_an_error(spec, passwd, group):
    for lookup in (lookup_user, lookup_owner):
        try:
            lookup(spec, passwd, group)
        except SandboxError:
            pass
    assert home_of(0, passwd)
