#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stand-in for ssh to this machine:  fake_ssh.py [-o X ...] HOST COMMAND...

It imitates one property of ssh: a server process, not the client, is the parent of the command.
When the client is killed, the server closes the command's pipes and exits, and the command keeps
running.  Exit code and output are those of the command.
"""

from __future__ import annotations

import ctypes
import os
import select
import subprocess
import sys

WITH_VALUE = ("-o", "-p", "-i", "-l")


def main(arguments: list[str]) -> int:
    words: list[str] = []  # host and command; options may precede or follow the host
    while arguments:
        if len(words) < 2 and arguments[0].startswith("-"):
            arguments = arguments[2 if arguments[0] in WITH_VALUE else 1 :]
        else:
            words.append(arguments.pop(0))
    command = " ".join(words[1:])
    alive, client_end = os.pipe()  # the kernel closes client_end when the client ends
    answer, reply = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.close(client_end)
        os.close(answer)
        serve(command, alive, reply)
        os._exit(0)
    os.close(alive)
    os.close(reply)
    code = os.read(answer, 16)
    return int(code) if code else 255


def serve(command: str, alive: int, reply: int) -> None:
    ctypes.CDLL(None).prctl(15, b"sshd", 0, 0, 0)  # PR_SET_NAME
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    pipes = {process.stdout.fileno(): 1, process.stderr.fileno(): 2}
    while pipes:
        for ready in select.select([alive, *pipes], [], [])[0]:
            if ready == alive:
                return
            data = os.read(ready, 1 << 16)
            if data:
                os.write(pipes[ready], data)
            else:
                del pipes[ready]
    os.write(reply, str(process.wait()).encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
