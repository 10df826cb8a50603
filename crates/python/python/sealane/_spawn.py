"""Starting a child process with a channel to it."""

import os
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from . import _native
from ._settings import Settings
from .errors import HandshakeError

#: Seconds that a child has to end by itself after a failed handshake, before it is killed.
GRACE = 1.0


class Process(subprocess.Popen[bytes]):
    """The process that ``spawn`` has started: a ``Popen`` whose ``with`` ends, whatever the order of the two objects."""

    #: Its channel, once there is one. A channel that the program drops is closed, so it is not kept here.
    _channel: weakref.ref[_native.Channel] | None = None
    #: Seconds that it has to end by itself at the end of ``with``, before it is killed. ``None`` is for ever.
    exit_timeout: float | None = None

    def __exit__(self, *reason: Any) -> None:
        """Closes the channel, which a child takes as its end, and the pipes, and waits. A child that does not end is killed."""
        if self._channel is not None and (channel := self._channel()) is not None:
            channel.close()
        try:
            for stream in (self.stdout, self.stderr, self.stdin):
                if stream is not None:
                    stream.close()
        finally:
            # An interrupt came to the child as well, and ``Popen`` waits a moment for it.
            if reason[:1] != (KeyboardInterrupt,) and self.exit_timeout is not None:
                try:
                    self.wait(self.exit_timeout)
                except subprocess.TimeoutExpired:
                    self.kill()
            super().__exit__(*reason)


def spawn(
    args: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    popen: Mapping[str, Any] | None = None,
    exit_timeout: float | None = 10.0,
    **settings: Unpack[Settings],
) -> tuple[_native.Channel, Process]:
    """Starts a program with a channel to it, which it takes by ``inherited``. Returns the channel and a ``subprocess.Popen``.

    ``args`` and ``env`` are those of ``Popen``, and ``popen`` has more of its arguments. A child that does not take the channel
    is killed. The end of ``with process:`` closes the channel, waits for the child, and kills it after ``exit_timeout`` seconds;
    ``None`` waits for ever.
    """
    prepared = _native.prepare(**settings)
    try:
        number = prepared.fileno()
        more = dict(popen or {})
        passed = (*more.pop("pass_fds", ()), number)
        variables = {**(os.environ if env is None else env), "SEALANE_FD": prepared.name}
        process = Process(args, env=variables, pass_fds=passed, **more)
    except BaseException:
        prepared.close()
        raise
    try:
        channel = prepared.started().finish()
        process._channel, process.exit_timeout = weakref.ref(channel), exit_timeout
        return channel, process
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
