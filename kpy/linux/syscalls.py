"""Numbers of system calls, by name, and the layouts of the kernel's structures that differ between architectures.
Data only: arch/x86/entry/syscalls/*.tbl, include/uapi/asm-generic/unistd.h and asm/stat.h of Linux.
"""

import os

AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCH_AARCH64 = 0xC00000B7
X32_BIT = 0x40000000


class StatLayout:
    """`struct stat` as the kernel writes it: its size, and where these 32-bit fields are; `rdev` has 64 bits."""

    __slots__ = ("gid", "mode", "rdev", "size", "uid")

    def __init__(self, size: int, mode: int, uid: int, gid: int, rdev: int) -> None:
        self.size = size
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.rdev = rdev


class Arch:
    """One system call interface. `stat` is None for one whose stat calls we do not answer."""

    __slots__ = ("audit", "name", "numbers", "stat")

    def __init__(self, name: str, audit: int, stat: StatLayout | None, numbers: str, shared: str = "") -> None:
        self.name = name
        self.audit = audit
        self.stat = stat
        words = (numbers + " " + shared).split()
        self.numbers = {word: int(number) for word, number in zip(words[::2], words[1::2], strict=True)}

    def named(self) -> dict[int, str]:
        """The names by number."""
        return {number: name for name, number in self.numbers.items()}


# System calls younger than Linux 5.0 have one number everywhere.
_YOUNG = """
io_uring_setup 425 clone3 435 openat2 437 faccessat2 439 landlock_create_ruleset 444 landlock_add_rule 445
landlock_restrict_self 446 fchmodat2 452 setxattrat 463 getxattrat 464 listxattrat 465 removexattrat 466
open_tree_attr 467 file_getattr 468 file_setattr 469
"""

X86_64 = Arch(
    "x86_64", AUDIT_ARCH_X86_64, StatLayout(144, mode=24, uid=28, gid=32, rdev=40),
    """
    open 2 stat 4 fstat 5 lstat 6 access 21 socket 41 connect 42 bind 49 socketpair 53 getsockopt 55 clone 56 execve 59 truncate 76 getcwd 79 chdir 80 fchdir 81 rename 82
    mkdir 83 rmdir 84 creat 85 link 86 unlink 87 symlink 88 readlink 89 chmod 90 fchmod 91 chown 92 fchown 93 lchown 94 umask 95 getdents64 217
    getuid 102 getgid 104 setuid 105 setgid 106 geteuid 107 getegid 108 setreuid 113 setregid 114 getgroups 115
    setgroups 116 setresuid 117 getresuid 118 setresgid 119 getresgid 120 setfsuid 122 setfsgid 123 capget 125
    capset 126 utime 132 mknod 133 prctl 157 setrlimit 160 chroot 161 setxattr 188 lsetxattr 189 fsetxattr 190
    getxattr 191 lgetxattr 192 fgetxattr 193 keyctl 250 listxattr 194 llistxattr 195 flistxattr 196 removexattr 197
    lremovexattr 198 fremovexattr 199 utimes 235 openat 257 mkdirat 258 mknodat 259 fchownat 260 futimesat 261
    unshare 272 newfstatat 262 unlinkat 263 renameat 264 linkat 265 symlinkat 266 readlinkat 267 fchmodat 268 faccessat 269 utimensat 280
    prlimit64 302 renameat2 316 setpriority 141 sched_setparam 142 sched_setscheduler 144 sched_setaffinity 203
    ioprio_set 251 sched_setattr 314 seccomp 317 execveat 322 statx 332
    """, _YOUNG,
)  # fmt: skip

AARCH64 = Arch(
    "aarch64", AUDIT_ARCH_AARCH64, StatLayout(128, mode=16, uid=24, gid=28, rdev=32),
    """
    setxattr 5 lsetxattr 6 fsetxattr 7 getxattr 8 lgetxattr 9 fgetxattr 10 listxattr 11 llistxattr 12 flistxattr 13
    removexattr 14 lremovexattr 15 fremovexattr 16 getcwd 17 getdents64 61 mknodat 33 mkdirat 34 unlinkat 35 symlinkat 36 linkat 37
    renameat 38 truncate 45 faccessat 48 chdir 49 fchdir 50 chroot 51 fchmod 52 fchmodat 53 fchownat 54 fchown 55
    openat 56 readlinkat 78 newfstatat 79 fstat 80 utimensat 88 unshare 97 capget 90 capset 91 setregid 143 setgid 144 setreuid 145 setuid 146
    setresuid 147 getresuid 148 setresgid 149 getresgid 150 setfsuid 151 setfsgid 152 getgroups 158 setgroups 159
    setrlimit 164 umask 166 prctl 167 keyctl 219 getuid 174 geteuid 175 getgid 176 getegid 177 socket 198 socketpair 199 bind 200 connect 203 getsockopt 209
    clone 220 execve 221 prlimit64 261 renameat2 276 setpriority 140 sched_setparam 118 sched_setscheduler 119 sched_setaffinity 122
    ioprio_set 30 sched_setattr 274 seccomp 277 execveat 281 statx 291
    """, _YOUNG,
)  # fmt: skip

# For 32-bit programs on x86_64. Names are those of the calls that mean the same there; `old_` ones have 16-bit ids.
I386 = Arch(
    "i386", AUDIT_ARCH_I386, None,
    """
    open 5 creat 8 link 9 unlink 10 execve 11 chdir 12 mknod 14 chmod 15 old_lchown 16 old_setuid 23 old_getuid 24
    utime 30 access 33 rename 38 mkdir 39 rmdir 40 old_setgid 46 old_getgid 47 old_geteuid 49 old_getegid 50 umask 60
    chroot 61 old_setreuid 70 old_setregid 71 setrlimit 75 old_getgroups 80 socketcall 102 old_setgroups 81 symlink 83 readlink 85 truncate 92
    fchmod 94 old_fchown 95 clone 120 fchdir 133 old_setfsuid 138 old_setfsgid 139 old_setresuid 164 old_setresgid 170
    prctl 172 old_chown 182 getcwd 183 getdents64 220 capget 184 capset 185 lchown 198 getuid 199 getgid 200 geteuid 201 getegid 202
    setreuid 203 setregid 204 getgroups 205 setgroups 206 fchown 207 setresuid 208 getresuid 209 setresgid 210
    getresgid 211 chown 212 setuid 213 setgid 214 setfsuid 215 setfsgid 216 setxattr 226 lsetxattr 227 fsetxattr 228
    getxattr 229 lgetxattr 230 fgetxattr 231 listxattr 232 llistxattr 233 flistxattr 234 removexattr 235
    lremovexattr 236 fremovexattr 237 utimes 271 openat 295 mkdirat 296 mknodat 297 fchownat 298 futimesat 299
    unlinkat 301 renameat 302 linkat 303 symlinkat 304 readlinkat 305 fchmodat 306 faccessat 307 unshare 310 utimensat 320 prlimit64 340 setpriority 97
    sched_setparam 154 sched_setscheduler 156 sched_setaffinity 241 ioprio_set 289 sched_setattr 351
    renameat2 353 seccomp 354 execveat 358 socket 359 socketpair 360 bind 361 connect 362 getsockopt 365 statx 383
    """, _YOUNG,
)  # fmt: skip

STATX_SIZE = 256
STATX_UID, STATX_GID, STATX_MODE, STATX_INO, STATX_BTIME = 20, 24, 28, 32, 80
STATX_RDEV, STATX_DEV = 128, 136  # major and minor, 32 bits each
STATX_BTIME_BIT = 0x800

_NATIVE = {"x86_64": X86_64, "aarch64": AARCH64}
_COMPATIBLE = {"x86_64": (I386,), "aarch64": ()}


def native() -> Arch | None:
    """This machine's interface; None where we know none."""
    return _NATIVE.get(os.uname().machine)


def compatible(arch: Arch) -> tuple[Arch, ...]:
    """The other interfaces that programs may use on a kernel of this architecture."""
    return _COMPATIBLE[arch.name]
