"""The ``systemctl`` of a simulated VM without systemd: hands its arguments to the VM's supervisor.

Runs as a script, ``systemctl.py RUN_DIRECTORY VERB...``, once for every look that the agent takes, so it
imports next to nothing. What the verbs mean stands in ``systemctl_verbs.py``.
"""

import _socket  # not socket: that one costs 15 ms of imports, which is the whole budget
import os
import sys

SOCKET_NAME = "systemd.sock"


def ask(run_directory: str, arguments: "list[str]") -> "tuple[int, bytes, bytes]":
    """Send the arguments; the answer is the exit code and what belongs on stdout and stderr."""
    os.chdir(run_directory)  # a socket's path may hold 107 bytes only; the directory's own may be longer
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.connect(SOCKET_NAME)
    request = "\0".join(["systemctl", os.environ.get("TZ", ""), *arguments]).encode(
        "utf-8", "surrogateescape"
    )
    connection.send(b"%d\n" % len(request) + request)
    answer = bytearray()
    while chunk := connection.recv(65536):
        answer += chunk
    head, _, body = bytes(answer).partition(b"\n")
    code, output_length = (int(word) for word in head.split())
    return code, body[:output_length], body[output_length:]


def main() -> int:
    try:
        code, output, errors = ask(sys.argv[1], sys.argv[2:])
    except (OSError, ValueError) as error:
        sys.stderr.write(f"Failed to connect to bus: {error}\n")
        return 1
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(errors)
    return code


if __name__ == "__main__":
    sys.exit(main())
