"""The kinds of socket that a RUN may have: of kpy.linux.profile, and for who makes sockets for it. Imports nothing."""

FAMILIES = frozenset({*range(12), *range(13, 19), 21, 22, 24, *range(26, 34), 35, 36, 39, *range(41, 46)})
"""AF_ALG (38: CVE-2026-31431) and AF_VSOCK (40: it reaches the host of a virtual machine) are not among them, nor are those that are
obsolete."""
