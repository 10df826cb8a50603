"""Helpers of the tests."""

import subprocess
import sys
import textwrap
import threading

import pytest

import sealane

#: Seconds after which a test that hangs fails. No test measures time.
PATIENCE = 60


@pytest.fixture
def pair():
    """A channel with both ends here."""
    a, b = sealane.pair()
    with a, b:
        yield a, b


@pytest.fixture
def joined():
    """Subscribes in another thread, while this one looks after the publisher's event of it."""

    def run(publisher, path, **settings):
        found = []
        thread = threading.Thread(target=lambda: found.append(sealane.subscribe(path, **settings)))
        thread.start()
        publisher.wait_event(timeout=20)
        thread.join()
        return found[0]

    return run


@pytest.fixture
def script(tmp_path):
    """Runs a program in an interpreter of its own: what crashes there is a failure here."""

    def run(code, *arguments, flags=(), status=0, **options):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(code))
        command = [sys.executable, "-X", "faulthandler", *flags, str(path), *map(str, arguments)]
        done = subprocess.run(command, timeout=PATIENCE, text=True, capture_output=True, **options)
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
