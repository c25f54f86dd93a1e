"""What stands between a RUN and the kernel in every mode, raised by the process that becomes its command. Imports little."""


from kpy.linux import landlock, seccomp, syscalls


class CannotRaise(Exception):
    """The kernel has what is asked for, and refuses it."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


def filter_calls(program: bytes) -> None:
    """Filter the system calls of this process, and of all that comes of it, from now on (kpy.linux.profile). It needs
    CAP_SYS_ADMIN in its user namespace, or no_new_privs. A kernel without filters has none, which those who build are told
    before; an empty program is none."""
    arch = syscalls.native()
    if arch is None or not program:
        return
    try:
        seccomp.install_lasting(program, arch)
    except OSError as error:
        if seccomp.is_there(arch):
            raise CannotRaise("cannot filter the system calls of the RUN", error.errno or 0) from error


def close_abstract_sockets() -> None:
    """Reach no abstract Unix socket from now on but those of processes that come of this one, where the kernel can see to
    that. It needs what `filter_calls` needs."""
    arch = syscalls.native()
    if arch is None or landlock.version(arch) < landlock.WITH_SCOPES:
        return
    try:
        landlock.keep_apart(arch, landlock.SOCKETS)
    except OSError as error:
        raise CannotRaise("cannot keep the host's abstract sockets from the RUN", error.errno or 0) from error
