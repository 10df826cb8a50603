"""Two processes: children, clients, forks, closed streams, restarts."""

import os
import signal
import subprocess
import sys
import threading

import pytest

import sealane

CHILD = """
import sys, sealane
with sealane.inherited() as channel:
    for message in channel:
        channel.reply(message, message.control.upper(), payload=message.bytes() if message.size is not None else None)
"""


def test_a_child_is_started_with_a_channel():
    channel, process = sealane.spawn([sys.executable, "-c", CHILD])
    with process:
        with channel:
            reply = channel.call(b"hello", payload=b"123", timeout=20)
            assert (reply.control, reply.bytes()) == (b"HELLO", b"123")
            assert channel.peer.pid == process.pid
        assert process.wait(20) == 0


def test_popen_gets_its_own_arguments():
    code = "import os, sealane; c = sealane.inherited(); c.send(os.environ['X']); print(os.getcwd())"
    env = {**os.environ, "X": "from env"}
    channel, process = sealane.spawn(
        [sys.executable, "-c", code], env=env, popen={"cwd": "/", "stdout": subprocess.PIPE}
    )
    with channel, process:
        assert channel.recv(timeout=20).control == b"from env"
        assert process.stdout.read() == b"/\n"


def test_a_child_that_takes_no_channel_is_an_error_and_is_reaped():
    with pytest.raises(sealane.HandshakeError):
        sealane.spawn(["true"])
    with pytest.raises((sealane.Timeout, sealane.HandshakeError)):
        sealane.spawn(["sleep", "100"], handshake_timeout=0.1)
    with pytest.raises(FileNotFoundError):
        sealane.spawn(["/nonexistent"])
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    with pytest.raises(sealane.HandshakeError):
        sealane.inherited()


def test_clients_come_to_a_listener(tmp_path):
    path = tmp_path / "service"
    with sealane.listen(path) as listener:
        assert not listener.closed
        with pytest.raises(TimeoutError):
            listener.accept(timeout=0)
        code = f"import sealane; c = sealane.connect({str(path)!r}); c.send(b'hello'); print(c.recv(timeout=20).control)"
        client = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        with client, listener.accept(timeout=20) as channel:
            assert channel.recv(timeout=20).control == b"hello"
            channel.send(b"welcome")
            assert client.stdout.read() == b"b'welcome'\n"
    with pytest.raises(FileNotFoundError) as missing:
        sealane.connect(path)
    assert missing.value.filename == str(path)
    with pytest.raises(OSError):
        sealane.listen("")


def test_a_service_is_restarted(tmp_path):
    path = tmp_path / "service"
    code = f"import os, sealane; c = sealane.listen({str(path)!r}).accept(); c.send(b'up'); c.recv()"
    for _ in range(2):
        server = subprocess.Popen([sys.executable, "-c", code])
        while True:
            try:
                channel = sealane.connect(path)
                break
            except OSError:
                assert server.poll() is None
        assert channel.recv(timeout=20).control == b"up"
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        with pytest.raises(EOFError):
            channel.recv(timeout=20)


def test_closed_streams_and_a_closed_pipe():
    code = """
import sys, sealane
channel = sealane.inherited()
channel.send(b"up")
"""
    command = f"exec {sys.executable} -c '{code}' <&- >&- 2>&-"
    channel, process = sealane.spawn(["sh", "-c", command])
    with channel, process:
        assert channel.recv(timeout=20).control == b"up"
        assert process.wait(20) == 0
    done = subprocess.run(
        f"{sys.executable} -c 'import sealane; a, b = sealane.pair()\nfor i in range(100000): a.send(str(i)); print(b.recv().control)' | head -n 1",
        shell=True, capture_output=True, timeout=60,
    )
    assert done.stdout == b"b'0'\n" and b"BrokenPipeError" in done.stderr


def test_a_fork_has_copies_and_its_end_is_not_noticed(script):
    script(
        """
        import os, sys, sealane
        for leave in (lambda: os._exit(0), lambda: sys.exit(0)):
            a, b = sealane.pair()
            message = (a.send(payload=b"123"), b.recv(timeout=5))[1]
            child = os.fork()
            if child == 0:
                assert message.bytes() == b"123"
                leave()
            assert os.waitpid(child, 0)[1] == 0
            a.send(b"x")
            assert b.recv(timeout=5).control == b"x"
        """
    )


def test_a_fork_during_a_call_of_another_thread_is_busy_and_no_fault(script):
    script(
        """
        import os, sys, threading, sealane
        a, b = sealane.pair()
        thread = threading.Thread(target=b.recv)
        thread.start()
        while True:
            try: b.recv(timeout=0)
            except sealane.BusyError: break
            except sealane.Timeout: pass
        child = os.fork()
        if child == 0:
            try: b.recv(timeout=0)
            except sealane.BusyError: pass
            else: os._exit(1)
            b.close(); del a, b
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        a.send(b"x")
        thread.join()
        """
    )


def test_multiprocessing_forks_and_spawns(script):
    script(
        """
        import multiprocessing, os, sealane
        def child(name):
            with sealane.connect(name) as channel:
                channel.send(payload=b"7" * 1000)
                channel.recv(timeout=20)
        if __name__ == "__main__":
            for kind in ("fork", "spawn", "forkserver"):
                name = f"@sealane-{os.getpid()}-{kind}"
                with sealane.listen(name) as listener:
                    process = multiprocessing.get_context(kind).Process(target=child, args=(name,))
                    process.start()
                    with listener.accept(timeout=40) as channel:
                        assert channel.recv(timeout=20).bytes() == b"7" * 1000
                        channel.send(b"done")
                        process.join()
                    assert process.exitcode == 0
        """
    )


def test_a_publisher_and_its_readers(tmp_path):
    path = tmp_path / "frames"
    with sealane.publish(path, ring_capacity=1 << 20, max_fds=1) as publisher:
        assert publisher.subscribers() == []
        publisher.send(b"nobody is here")
        found = []

        def join(**settings):
            found.append(sealane.subscribe(path, max_fds=1, **settings))

        for settings in ({}, {"slow": "overrun"}):
            thread = threading.Thread(target=join, kwargs=settings)
            thread.start()
            event = publisher.wait_event(timeout=20)
            thread.join()
            assert event.kind == "joined" and event.message is None
        waited, overrun = found
        assert (waited.granted, overrun.granted) == (0.1, "overrun")
        assert [info.policy for info in publisher.subscribers()] == [0.1, "overrun"]
        assert publisher.subscribers()[0].peer.pid == os.getpid()

        with publisher.loan((10, 10), "u2") as loan:
            with pytest.raises(sealane.BusyError):
                publisher.subscribers()
            view = loan.array
            view[:] = 5
            with pytest.raises(BufferError):
                loan.send()
            del view
            with open("/dev/null") as null:
                loan.send(b"frame 0", fds=[null])
        for subscriber in found:
            message = subscriber.recv(timeout=20)
            assert (message.control, message.missed, len(message.fds)) == (b"frame 0", 0, 1)
            assert message.array("u2", (10, 10)).sum() == 500
            message.release()

        for frame in range(200):
            publisher.send(str(frame), payload=bytes(50_000))
            assert waited.recv(timeout=20).control == str(frame).encode()
        newest = overrun.recv_latest(timeout=20)
        assert newest.control == b"199" and newest.missed == 199 == overrun.missed

        number = waited.request(b"who?")
        event = publisher.wait_event(timeout=20)
        assert event.kind == "message" and event.message.control == b"who?"
        publisher.reply(event.subscriber, event.message, b"you")
        answer = waited.recv(timeout=20)
        assert (answer.in_reply_to, answer.control) == (number, b"you")

        publisher.lost(3)
        publisher.epoch(9)
        publisher.send(b"x")
        message = waited.recv(timeout=20)
        assert (message.missed, message.epoch) == (3, 9)

        overrun.close()
        event = publisher.wait_event(timeout=20)
        assert event.kind == "left" and isinstance(event.reason, sealane.Disconnected)
        assert publisher.disconnect(publisher.subscribers()[0].id) and not publisher.subscribers()
        with pytest.raises(EOFError):
            waited.recv(timeout=20)
        assert publisher.stats()["messages_sent"] == 203
    assert not path.exists()


def test_a_subscriber_that_is_too_slow_is_told(tmp_path, joined):
    path = tmp_path / "frames"
    with sealane.publish(path, ring_capacity=1 << 20, slow=0.01) as publisher:
        subscriber = joined(publisher, path)
        publisher.send(payload=bytes(100_000))
        held = subscriber.recv(timeout=20)
        while publisher.subscribers():
            publisher.send(payload=bytes(100_000))
        with pytest.raises(sealane.TooSlow):
            while True:
                subscriber.recv(timeout=20)
        with pytest.raises(sealane.Overrun):
            held.bytes()
        with pytest.raises(sealane.Overrun):
            held.array("u1")
        with pytest.raises(sealane.Overrun):
            held.readinto(bytearray(100_000))


SERVES = "import sealane\nfor message in sealane.inherited(): pass"


def test_with_ends_in_either_order():
    for turn in (0, 1):
        channel, process = sealane.spawn([sys.executable, "-c", SERVES], popen={"stdin": subprocess.PIPE})
        first, second = (channel, process) if turn else (process, channel)
        with first, second:
            channel.send(b"x")
        assert process.returncode == 0 and channel.closed and process.stdin.closed
    channel, process = sealane.spawn([sys.executable, "-c", SERVES])
    del channel
    assert process.wait(20) == 0, "a channel that is dropped is closed"


def test_a_child_that_does_not_end_is_killed_at_the_end_of_with():
    code = "import sealane, signal\nc = sealane.inherited()\nc.send(b'up')\nsignal.pause()"
    channel, process = sealane.spawn([sys.executable, "-c", code], exit_timeout=0.1)
    with channel, process:
        assert channel.recv(timeout=20).control == b"up"
    assert process.returncode == -signal.SIGKILL
    channel, process = sealane.spawn([sys.executable, "-c", SERVES], exit_timeout=None)
    with pytest.raises(KeyError), channel, process:
        raise KeyError
    assert process.returncode == 0
