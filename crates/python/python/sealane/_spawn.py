"""Starting a child process with a channel to it."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from . import _native
from ._settings import Settings
from .errors import HandshakeError

#: Seconds that a child has to end by itself after a failed handshake, before it is killed.
GRACE = 1.0


def spawn(
    args: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    popen: Mapping[str, Any] | None = None,
    **settings: Unpack[Settings],
) -> tuple[_native.Channel, subprocess.Popen[bytes]]:
    """Starts a program with a channel to it, which it takes by ``inherited``. Returns the channel and a ``subprocess.Popen``.

    ``args`` and ``env`` are those of ``Popen``, and ``popen`` has more of its arguments. A child that does not take the channel
    is killed. ``with process:`` waits for its end; close the channel before.
    """
    prepared = _native.prepare(**settings)
    try:
        number = prepared.fileno()
        more = dict(popen or {})
        passed = (*more.pop("pass_fds", ()), number)
        variables = {**(os.environ if env is None else env), "SEALANE_FD": prepared.name}
        process = subprocess.Popen(args, env=variables, pass_fds=passed, **more)
    except BaseException:
        prepared.close()
        raise
    try:
        return prepared.started().finish(), process
    except BaseException as error:
        ended_by_itself = _end(process)
        if ended_by_itself and isinstance(error, HandshakeError) and error.awaited is not None:
            raise _native._child_ended(error.awaited, process.returncode) from None
        raise


def _end(process: subprocess.Popen[bytes]) -> bool:
    """Ends a child that got no channel, and reaps it. It may report the reason by itself first: true if it ended so."""
    try:
        process.wait(GRACE)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
