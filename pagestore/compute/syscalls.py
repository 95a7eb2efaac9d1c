"""The system calls that nobody within walls may make: a seccomp filter, for bubblewrap's --seccomp.

A superuser's programs have no rank, but the kernel answers them as anybody. What is denied here is
what neither Postgres nor an ordinary program asks for, and what is most often a way into the kernel
or out of a sandbox: namespaces of his own (in a user namespace he would have all capabilities, and
with them mounts, packet filters and the rest), the mount family, other processes' memory, BPF,
keys, kernel modules and images, performance counters, and what only root may do anyway. A call that
is denied fails with EPERM, as it would for want of a capability.

Two need more than a number. The flags of clone() say whether it makes a namespace. Those of
clone3() lie in memory, where no filter sees them: it fails with ENOSYS, and every libc takes
clone() then.

io_uring is how Postgres 18 may read (`io_method = io_uring`); before it nobody needs that.

The filter is a program of the kernel's classic BPF, eight bytes an instruction: see
Documentation/userspace-api/seccomp_filter.rst of Linux. It reads the number of the call as one of
*this* architecture: calls of another one (32-bit, x32) fail with ENOSYS.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

FIRST_WITH_IO_URING: Final = 18
"""The major of Postgres."""


class Architecture(NamedTuple):
    """
    Args:
        audit: AUDIT_ARCH_* of linux/audit.h.
        column: of DENIED.
        foreign: the bit of the calls of another kind (x32), 0 for none.
    """

    audit: int
    column: int
    foreign: int = 0


ARCHITECTURES: Final = {
    "x86_64": Architecture(0xC000003E, 0, 0x4000_0000),
    "aarch64": Architecture(0xC00000B7, 1),
}
DENIED: Final[dict[str, tuple[int | None, int | None]]] = {
    # Namespaces; unshare and clone are below.
    "setns": (308, 268),
    # Mounts.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # Other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # The kernel's own.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    # The machine.
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "acct": (163, 89),
    "syslog": (103, 116),
    "vhangup": (153, 58),
}
"""By name: the number on x86_64, and on aarch64."""
IO_URING: Final = {
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
CLONE, UNSHARE, CLONE3 = (56, 220), (272, 97), (435, 435)

_NEW_TIME = 0x80
"""CLONE_NEWTIME, for unshare alone: to clone it is part of a signal's number."""
_NEW_NAMESPACES = 0x7E02_0000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET of linux/sched.h."""

_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _IF_EQUAL, _IF_ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
"""BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K."""
_ALLOW, _FAIL = 0x7FFF_0000, 0x0005_0000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in struct seccomp_data; both machines are little-endian, so the low half comes first."""

_Instruction = tuple[int, int, int, int]


def is_known() -> bool:
    """Whether there is a filter for this machine."""
    return platform.machine() in ARCHITECTURES


def program(architecture: Architecture, *, io_uring: bool) -> bytes:
    """The filter."""
    column = architecture.column
    denied = {**DENIED, **({} if io_uring else IO_URING)}
    numbers = [row[column] for row in denied.values()]
    made: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, architecture.audit),
        _failing(errno.ENOSYS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if architecture.foreign:
        made += [(_IF_ANY, 0, 1, architecture.foreign), _failing(errno.ENOSYS)]
    for number in numbers:
        if number is not None:
            made += [(_IF_EQUAL, 0, 1, number), _failing(errno.EPERM)]
    made += [(_IF_EQUAL, 0, 1, CLONE3[column]), _failing(errno.ENOSYS)]
    made += _unless_flags(CLONE[column], _NEW_NAMESPACES)
    made += _unless_flags(UNSHARE[column], _NEW_NAMESPACES | _NEW_TIME)
    made.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(_INSTRUCTION.pack(*item) for item in made)


@contextmanager
def opened(*, io_uring: bool) -> Iterator[int | None]:
    """A descriptor from which bubblewrap reads the filter, once; None where there is none."""
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        yield None
        return
    descriptor = os.memfd_create("seccomp")
    try:
        os.write(descriptor, program(architecture, io_uring=io_uring))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _unless_flags(number: int, flags: int) -> Sequence[_Instruction]:
    """A call whose first argument may have none of these."""
    return (
        (_IF_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_IF_ANY, 0, 1, flags),
        _failing(errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    )


def _failing(number: int) -> _Instruction:
    return (_RETURN, 0, 0, _FAIL | number)
