r"""What the exit code of every command says.

| code | meaning |
|---|---|
| 0 | done |
| 1 | refused, with one sentence: a file, data, the machine or a result is not as it must be |
| 2 | wrong usage: a command, option or value that does not exist, is missing, or does not go with another |
| 3 | done, but some images could not be read; they are named (`predict`) |
| 128 + N | ended by signal N: 129 terminal closed, 130 Ctrl-C, 141 no reader (`\| head -1`), 143 `kill` |
"""

from __future__ import annotations

import signal

USAGE = 2
SOME_UNREADABLE = 3
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + 13
"""SIGPIPE, which not every system has."""
