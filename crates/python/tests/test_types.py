"""The types of the package agree with what is there, and a program that uses them is checked."""

import subprocess
import sys

import pytest

pytest.importorskip("mypy", reason="SKIPPED: mypy is not installed")


def mypy(module, *arguments, cwd):
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=cwd, text=True, capture_output=True)
    return done.returncode, done.stdout + done.stderr


def test_the_types_are_those_of_the_module(tmp_path):
    # Python shows the buffer protocol as methods from 3.12 on.
    (tmp_path / "allowed").write_text("sealane\\._native\\.(\\w+\\.__(release_)?buffer__|__all__)")
    options = ("--ignore-disjoint-bases", "--allowlist", "allowed", "--ignore-unused-allowlist")
    status, out = mypy("mypy.stubtest", "sealane", *options, cwd=tmp_path)
    assert status == 0, out


def test_a_program_is_checked(tmp_path):
    (tmp_path / "program.py").write_text(
        """
import sealane
from sealane import aio

a, b = sealane.pair(ring_capacity=1 << 20, wait="block", slow="overrun")
loan = a.loan((3, 4), dtype="u2", timeout=1)
loan.send(b"x", fds=[0])
with b.recv(timeout=1.5) as message:
    size: int | None = message.size
    raw: bytes = message.bytes() + message.control
channel, process = sealane.spawn(["true"])
process.wait()

async def main() -> None:
    async with await aio.connect("path", max_fds=3) as client:
        async for received in client:
            print(received.control)
"""
    )
    status, out = mypy("mypy", "--strict", "program.py", cwd=tmp_path)
    assert status == 0, out
    (tmp_path / "wrong.py").write_text(
        """
import sealane

a, b = sealane.pair(ring="large")
a.send(5)
b.recv().missing
sealane.Message()
"""
    )
    status, out = mypy("mypy", "--strict", "wrong.py", cwd=tmp_path)
    assert status == 1
    assert [line.split(":")[1] for line in out.splitlines() if "error:" in line] == ["4", "5", "6"], out
