"""Ends an engine's processes when the process that owns them is killed, which gives it no time to do so itself."""

from __future__ import annotations

import subprocess

# The shell reads until the pipe's other end, which only the owner holds, is gone. It looks at the names since a
# process that has long ended may have left its number to another one.
_SCRIPT = """
cat > /dev/null
for process in "$@"; do
    case "$(cat /proc/$process/comm 2> /dev/null)" in
        VLLM*) kill -KILL "$process" ;;
    esac
done
"""


class Deathwatch:
    """A shell that waits for this process to end, however it ends, and then kills the given vLLM processes.

    Under Linux only; elsewhere nothing is killed. vLLM's workers end with the engine process that started them.
    """

    def __init__(self, processes: list[int]) -> None:
        command = ["/bin/sh", "-c", _SCRIPT, "deathwatch", *map(str, processes)]
        # a session of its own, so that what ends the owner's whole process group spares it
        self._shell = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def release(self) -> None:
        """The processes have ended as they should; nothing is left to watch."""
        self._shell.kill()
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()
