"""The allow-list of system calls: threads yes; processes, programs, sockets and signals to others no.

A job that is to end in a program may start one in its own place; which, Landlock says. Everything that is not named
answers EPERM. pyseccomp builds the program once in the zygote; a job only loads it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import tempfile
from collections.abc import Collection
from functools import cache
from types import ModuleType

from worker.sandbox.kernel import Unavailable, install_filter, install_telling_filter


def _names(text: str) -> list[str]:
    return text.split()


ALLOWED = _names("""
read write readv writev pread64 pwrite64 preadv pwritev lseek close close_range dup dup2 dup3 flock
open openat openat2 creat stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat
getdents getdents64 getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2
ftruncate fallocate fsync fdatasync sync_file_range fadvise64 readahead sendfile copy_file_range statfs fstatfs umask
mmap munmap mprotect mremap madvise msync mincore brk mlock munlock membarrier
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack restart_syscall pause
futex futex_waitv set_robust_list get_robust_list set_tid_address rseq sched_yield sched_getaffinity
sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min getpriority getcpu
clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getitimer setitimer alarm
timer_create timer_settime timer_gettime timer_delete timer_getoverrun timerfd_create timerfd_settime timerfd_gettime
getpid gettid getppid getpgrp getpgid getsid getuid geteuid getgid getegid getresuid getresgid getgroups capget
uname sysinfo getrlimit getrusage getrandom arch_prctl
pipe pipe2 eventfd eventfd2 poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
epoll_pwait2 exit exit_group wait4 waitid
""")

# Landlock does not see changes of mode, owner, times and attributes, so they would reach other files of this user.
# Honest code (shutil, zipfile, tarfile) asks for them and does not need them: it is told that they were done. Times
# can be changed in a private root, which holds no other file that is writable: who touches a file makes it that way.
PRETENDED = _names("chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat")
# On which processor a thread runs and where its memory lies: OpenVINO asks for it, and computes the same without. The
# former could name a process of somebody else, the latter is code of the kernel that nothing honest depends on.
HINTS = _names("sched_setaffinity mbind")
TIMES = _names("utime utimes futimesat utimensat")
UNSUPPORTED = _names("setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr")
# glibc falls back to clone, whose flags a filter can read; those of clone3 stand in memory, where it cannot.
UNKNOWN = _names("clone3 io_uring_setup io_uring_enter io_uring_register memfd_secret userfaultfd pkey_alloc")
NETWORK = _names("""
socket socketpair connect bind listen accept accept4 sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg setsockopt
getsockopt getsockname getpeername shutdown
""")
# No library asks for these: whoever does is stopped at once.
FATAL = _names("""
ptrace process_vm_readv process_vm_writev kexec_load init_module finit_module bpf mount umount2 pivot_root setns unshare
open_by_handle_at perf_event_open keyctl add_key request_key
""")

CLONE_THREAD = 0x10000
# fcntl could otherwise send any signal to any process of this user: F_SETOWN and F_SETSIG, then O_ASYNC.
FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)  # dup, flags, locks, pipe size
PRCTL = (15, 16, 0x53564D41)  # the names of threads and of mappings
IOCTL = (0x5401, 0x5413, 0x5451, 0x5450, 0x541B, 0x5421)  # TCGETS TIOCGWINSZ FIOCLEX FIONCLEX FIONREAD FIONBIO
SIGNALS = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
# What is asked for by whoever wants out, as ``REACHING`` names it, is answered with one of these
OF_REACHING = (errno.EPERM, errno.EACCES, errno.EAGAIN)
REACHING = {
    "program": ["execve", "execveat"],
    "process": ["fork", "vfork", "clone"],
    "network": NETWORK,
    "signal": [*SIGNALS, "tkill", "pidfd_send_signal"],
}
LOOKED_AT = {"clone": 0, "fcntl": 1, "prctl": 0, "ioctl": 1, "prlimit64": 2}  # call → the argument that decides
RETURN = 6  # the instruction that ends a program; what it returns says what becomes of the call
ERROR, ASK = 0x0005_0000, 0x7FC0_0000  # an error, whose number is the lower half; ask whoever listens
OWN_PID = 0x7ED0_0D1E  # stands in the program for the process that loads it; above any real process id


class _Rules:
    """A filter in the making. ``strict`` kills where a refusal would have answered an error."""

    def __init__(self, library: ModuleType, strict: bool) -> None:
        self.library = library
        self.strict = strict
        self.filter = library.SyscallFilter(self.refuse(errno.EPERM))
        self.filter.set_attr(library.Attr.ACT_BADARCH, library.KILL_PROCESS)

    def refuse(self, number: int) -> int:
        action: int = self.library.KILL_PROCESS if self.strict else self.library.ERRNO(number)
        return action

    def add(self, action: int, names: list[str] | tuple[str, ...], *conditions: object) -> None:
        """One rule for each name. What this architecture or libseccomp does not know stays refused."""
        for name in names:
            with contextlib.suppress(OSError, ValueError):
                self.filter.add_rule(action, name, *conditions)

    def allow_values(self, name: str, position: int, values: tuple[int, ...]) -> None:
        """Allow ``name`` where one argument has one of the values."""
        for value in values:
            self.add(self.library.ALLOW, [name], self.library.Arg(position, self.library.EQ, value))


def _add_conditional(rules: _Rules) -> None:
    library = rules.library

    def thread(flag: int) -> object:
        return library.Arg(0, library.MASKED_EQ, CLONE_THREAD, flag)

    rules.add(library.ALLOW, ["clone"], thread(CLONE_THREAD))
    rules.add(rules.refuse(errno.EAGAIN), ["clone"], thread(0))
    for name in SIGNALS:
        rules.allow_values(name, 0, (OWN_PID,))
    rules.allow_values("fcntl", 1, FCNTL)
    rules.allow_values("prctl", 0, PRCTL)
    rules.allow_values("ioctl", 1, IOCTL)
    rules.allow_values("prlimit64", 2, (0,))  # reading limits, not setting them


@cache
def compile_filter(strict: bool = False, program: bool = False, alone: bool = False) -> bytes:
    """The rules as the kernel takes them, for a job that ends in a program where ``program`` says so, and for one in a
    private root where ``alone`` does. ImportError and RuntimeError of pyseccomp become Unavailable."""
    try:
        import pyseccomp as library
    except (ImportError, RuntimeError, OSError) as error:
        raise Unavailable(f"pyseccomp or libseccomp is missing: {error}") from None
    rules = _Rules(library, strict)
    rules.add(library.ALLOW, [*ALLOWED, *(["execve"] if program else [])])
    rules.add(library.ERRNO(0), [*PRETENDED, *HINTS])
    rules.add(library.ALLOW if alone else library.ERRNO(0), TIMES)
    rules.add(library.ERRNO(errno.ENOTSUP), UNSUPPORTED)
    rules.add(library.ERRNO(errno.ENOSYS), UNKNOWN)
    rules.add(rules.refuse(errno.EACCES), NETWORK)
    rules.add(rules.refuse(errno.EAGAIN), ["fork", "vfork"])
    rules.add(library.KILL_PROCESS, FATAL)
    _add_conditional(rules)
    with tempfile.TemporaryFile() as file:
        rules.filter.export_bpf(file)
        file.seek(0)
        return file.read()


def error_of(name: str) -> int:
    """What the filter answers to a call that it refuses or pretends to have done; 0 for the latter."""
    answers = {
        0: [*PRETENDED, *TIMES, *HINTS],
        errno.ENOTSUP: UNSUPPORTED,
        errno.ENOSYS: UNKNOWN,
        errno.EACCES: NETWORK,
        errno.EAGAIN: ["fork", "vfork", "clone"],
    }
    return next((number for number, names in answers.items() if name in names), errno.EPERM)


def name_of(architecture: int, call: int) -> str:
    """A system call by its number."""
    import pyseccomp

    return bytes(pyseccomp.resolve_syscall(architecture, call)).decode()


def _asking(program: bytes, errors: Collection[int]) -> bytes:
    """The same program, which asks where it would answer one of these errors."""
    instructions = [struct.unpack_from("=HBBI", program, place) for place in range(0, len(program), 8)]
    changed = [
        (code, yes, no, ASK if code == RETURN and value & 0xFFFF_0000 == ERROR and value & 0xFFFF in errors else value)
        for code, yes, no, value in instructions
    ]
    return b"".join(struct.pack("=HBBI", *each) for each in changed)


def load_telling_filter(program: bool = False, alone: bool = False, *, everything: bool = True) -> int:
    """Lock this thread to the same list, with refusals that are told: the descriptor at which they are.

    ``everything``: also what honest libraries ask for and do without, as new threads do each time."""
    template = compile_filter(program=program, alone=alone)
    return install_telling_filter(_asking(_own(template), range(0x1_0000) if everything else OF_REACHING))


def _own(template: bytes) -> bytes:
    return template.replace(struct.pack("=I", OWN_PID), struct.pack("=I", os.getpid()))


def load_filter(strict: bool = False, program: bool = False, alone: bool = False) -> str:
    """Lock this thread to the allow-list. Says what engaged."""
    install_filter(_own(compile_filter(strict, program, alone)))
    return f"allow-list of {len(ALLOWED) + program} calls, everything else {'kills' if strict else 'is refused'}"
