"""An emulated root: what a RUN sees of users, owners and modes where the builder has no privileges at all.

A filter (filter.py) sends the system calls that would show the truth to the supervisor of the RUN, which answers them
(loop.py) by the rules of Linux (credentials.py, permissions.py) and what the ledger says of files. Nothing is ever
done with more rights than the RUN's processes have themselves. It is no security boundary: a process that wants to
fool it fools itself. What keeps a RUN away from the builder is in start.py.

What it cannot do, for the manual:
- /proc/PID/status and files in /proc show the builder's ids; messages with SCM_CREDENTIALS carry them.
- Threads share one set of credentials, as the C library has it; not those that a program gives to single threads.
- Capabilities are only believed in: no raw sockets, mounts, chroot (but to /), or other powers of the kernel.
  Docker's filter refuses chroot before ours is asked: root's sshd, which changes its root, does not get beyond its greeting.
- A device is an empty file for the RUN itself. Ambient and bounding sets are not kept. ACLs do not grant or refuse.
- Calls of a 32-bit program about a file's status show the builder's ids; all else of it is emulated. io_uring is not
  there. A set-id file loses its bits when another opens it for writing, not when it is written to.
- Signals to processes of other emulated users are not refused, nor are System V IPC, ptrace, and priorities.
- Inside a directory whose default ACL has to do with modes, the umask is applied all the same.
"""
