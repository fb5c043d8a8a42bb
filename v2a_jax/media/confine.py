"""Confinement of this process by the Linux kernel; nothing may lift it.

`confine` leaves a process its memory, its threads and the files that are open:

  Landlock   no file or folder can be opened, made, renamed or removed; no TCP;
             no signals or abstract sockets to processes outside
  seccomp    no sockets of any kind, no programs or processes, no tracing, no
             change of modes, owners or attributes; where Landlock is missing,
             no opening of files at all

Both are asked for through their system calls: the Python packages for them are
not maintained or need a C library. Linux 5.13 and 4.14 on x86-64 and ARM64;
elsewhere nothing is enforced, and `confine` says so.

https://docs.kernel.org/userspace-api/landlock.html
https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

import contextlib
import ctypes
import errno
import os
import platform
import struct
import sys

# Numbers of system calls on x86-64 and ARM64; None where there is none.
_REFUSED = {
  "socket": (41, 198),
  "socketpair": (53, 199),
  "connect": (42, 203),
  "bind": (49, 200),
  "listen": (50, 201),
  "accept": (43, 202),
  "accept4": (288, 242),
  "execve": (59, 221),
  "execveat": (322, 281),
  "fork": (57, None),
  "vfork": (58, None),
  "ptrace": (101, 117),
  "process_vm_readv": (310, 270),
  "process_vm_writev": (311, 271),
  "pidfd_open": (434, 434),
  "pidfd_getfd": (438, 438),
  "pidfd_send_signal": (424, 424),
  "kill": (62, 129),
  "tkill": (200, 130),
  "rt_sigqueueinfo": (129, 138),
  "rt_tgsigqueueinfo": (297, 240),
  "chmod": (90, None),
  "fchmod": (91, 52),
  "fchmodat": (268, 53),
  "fchmodat2": (452, 452),
  "chown": (92, None),
  "lchown": (94, None),
  "fchown": (93, 55),
  "fchownat": (260, 54),
  "utime": (132, None),
  "utimes": (235, None),
  "futimesat": (261, None),
  "utimensat": (280, 88),
  "setxattr": (188, 5),
  "lsetxattr": (189, 6),
  "fsetxattr": (190, 7),
  "removexattr": (197, 14),
  "lremovexattr": (198, 15),
  "fremovexattr": (199, 16),
  "truncate": (76, 45),
  "mount": (165, 40),
  "umount2": (166, 39),
  "unshare": (272, 97),
  "setns": (308, 268),
  "chroot": (161, 51),
  "bpf": (321, 280),
  "perf_event_open": (298, 241),
  "userfaultfd": (323, 282),
  "add_key": (248, 217),
  "request_key": (249, 218),
  "keyctl": (250, 219),
  "io_uring_setup": (425, 425),  # its operations would pass by this filter
  "io_uring_enter": (426, 426),
  "io_uring_register": (427, 427),
  "inotify_add_watch": (254, 27),
  "open_by_handle_at": (304, 265),
}
# What Landlock refuses, for kernels without it.
_FILES = {
  "open": (2, None),
  "creat": (85, None),
  "openat": (257, 56),
  "openat2": (437, 437),
  "rename": (82, None),
  "renameat": (264, 38),
  "renameat2": (316, 276),
  "link": (86, None),
  "linkat": (265, 37),
  "symlink": (88, None),
  "symlinkat": (266, 36),
  "unlink": (87, None),
  "unlinkat": (263, 35),
  "rmdir": (84, None),
  "mkdir": (83, None),
  "mkdirat": (258, 34),
  "mknod": (133, None),
  "mknodat": (259, 33),
}
_CLONE, _CLONE3 = (56, 220), 435
_TGKILL, _PRLIMIT = (234, 131), (302, 261)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000  # bit of x86-64 calls with 32-bit pointers
_CLONE_THREAD = 0x10000

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE = 1 << 2
# Kinds of file access by the version of Landlock that added them.
_ACCESS = {1: 13, 2: 14, 3: 15, 5: 16}
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
# Facts about itself that a process may go on reading.
_READABLE = ("/proc/self/status",)

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


class _Filter(ctypes.Structure):
  _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]


def confine() -> tuple[str, ...]:
  """Confines this process, its threads and children for good.

  Call it before there are other threads, which it would not confine.

  Returns:
    What the kernel enforces: "landlock" and "seccomp", or less where it has
    not got them.
  """
  if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES:
    return ()
  libc = ctypes.CDLL(None, use_errno=True)
  libc.syscall.restype = ctypes.c_long
  if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
    return ()
  done = []
  if _restrict_files(libc):
    done.append("landlock")
  if _filter_calls(libc, refuse_files=not done):
    done.append("seccomp")
  return tuple(done)


def describe(enforced: tuple[str, ...] | list[str]) -> str:
  """Puts what `confine` returned into words."""
  if not enforced:
    return (
      "limits of work and memory only: there is no Landlock and no seccomp here,"
      " so open no files of strangers"
    )
  network = "no network" if "seccomp" in enforced else "no TCP"
  return (
    f"{' and '.join(enforced)}: {network}, no environment, no other file, no"
    " writing"
  )


def _restrict_files(libc) -> bool:
  """Refuses all opening and changing of files by Landlock, if there is one."""
  call = libc.syscall
  version = call(_CREATE_RULESET, None, 0, 1)
  if version < 1:
    return False
  kinds = max(n for first, n in _ACCESS.items() if first <= version)
  tcp = 3 if version >= 4 else 0
  scopes = 3 if version >= 6 else 0
  size = 24 if version >= 6 else 16 if version >= 4 else 8
  attributes = struct.pack("=QQQ", (1 << kinds) - 1, tcp, scopes)[:size]
  ruleset = call(_CREATE_RULESET, attributes, size, 0)
  if ruleset < 0:
    return False
  for path in _READABLE:
    with contextlib.suppress(OSError):
      # It stays open: the rule is for this inode, which /proc makes anew.
      parent = os.open(path, os.O_RDONLY)
      rule = struct.pack("=Qi", _READ_FILE, parent)
      call(_ADD_RULE, ruleset, 1, rule, 0)
  failed = call(_RESTRICT_SELF, ruleset, 0)
  os.close(ruleset)
  return not failed


def _filter_calls(libc, *, refuse_files: bool) -> bool:
  """Refuses system calls by seccomp, if there is one."""
  calls = _REFUSED | (_FILES if refuse_files else {})
  program = _program(calls)
  code = ctypes.create_string_buffer(program, len(program))
  filter_ = _Filter(len(program) // 8, ctypes.addressof(code))
  return not libc.prctl(_SECCOMP, _FILTER, ctypes.byref(filter_), 0, 0)


def _program(calls: dict[str, tuple[int | None, ...]]) -> bytes:
  """Assembles the filter: a call in the list fails with EPERM, others pass."""
  column, architecture = _ARCHITECTURES[platform.machine()]
  numbers = [n[column] for n in calls.values() if n[column] is not None]
  ins = lambda code, value, yes=0, no=0: struct.pack(
    "=HBBI", code, yes, no, value
  )
  refuse = ins(_RETURN, _ERRNO | errno.EPERM)
  program = [
    ins(_LOAD, 4),  # architecture; a process may switch to 32-bit calls
    ins(_EQUAL, architecture, 1, 0),
    refuse,
    ins(_LOAD, 0),  # number of the call
    ins(_AT_LEAST, _X32, 0, 1),
    refuse,
    # glibc makes threads by clone if clone3, whose flags a filter cannot see,
    # is missing.
    ins(_EQUAL, _CLONE3, 0, 1),
    ins(_RETURN, _ERRNO | errno.ENOSYS),
  ]
  for number in numbers:
    program += [ins(_EQUAL, number, 0, 1), refuse]
  allowed = (  # calls of which some pass: by the low half of argument 0
    (_CLONE[column], _ANY_BIT, _CLONE_THREAD),
    (_TGKILL[column], _EQUAL, os.getpid()),
    (_PRLIMIT[column], _EQUAL, 0),
  )
  for number, test, value in allowed:
    program += [
      ins(_EQUAL, number, 0, 4),
      ins(_LOAD, 16),
      ins(test, value, 1, 0),
      refuse,
      ins(_RETURN, _ALLOW),
    ]
  return b"".join([*program, ins(_RETURN, _ALLOW)])
