"""Runs one command inside a box: in all its namespaces and in its control groups, as root.

``python -m devcloud.vms.enter PID GROUPS COMMAND...`` with GROUPS joined by ``:``. The command gets this
process's environment, standard output and process group, and ends with it; the exit code is the command's,
128 + N for a signal.
"""

from __future__ import annotations

import os
import signal
import sys

from devcloud.vms import linux  # and little else: this runs for every script


def main() -> int:
    init, groups, *command = sys.argv[1:]
    target = os.pidfd_open(int(init))
    for group in groups.split(":"):
        linux.join_cgroup(group)
    linux.setns(target, linux.BOX_NAMESPACES | linux.CLONE_NEWPID)
    os.close(target)
    os.chdir("/")
    pid = os.fork()  # a pid namespace is entered by children only
    if pid == 0:
        try:
            linux.die_with_parent(signal.SIGKILL)
            os.execvpe(command[0], command, os.environ)
        finally:
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
