"""Threads, signals, and the end of the interpreter."""

import threading

import pytest

import sealane


def blocked(act):
    """Starts a thread that waits in `act`. Returns it and what comes of it."""
    outcome = []
    begun = threading.Event()

    def run():
        begun.set()
        try:
            outcome.append(act())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    return thread, outcome


def until_busy(act):
    """Tries until another thread is in a call."""
    while True:
        try:
            act()
        except sealane.BusyError:
            return
        except sealane.Timeout:
            pass


def test_two_threads_in_one_direction_are_an_exception(pair):
    a, b = pair
    thread, outcome = blocked(b.recv)
    until_busy(lambda: b.recv(timeout=0))
    for act in (b.recv, b.try_recv, b.poll, b.stats):
        with pytest.raises(sealane.BusyError):
            act()
        with pytest.raises(RuntimeError):
            act()
    b.send(b"the other direction is free")
    assert a.recv(timeout=5).control
    a.send(b"x")
    thread.join()
    assert outcome[0].control == b"x"


@pytest.mark.parametrize("what", ["recv", "recv_batch", "poll", "loan", "reply", "iterate"])
def test_close_in_another_thread_ends_a_call_that_waits(what):
    a, b = sealane.pair(ring_capacity=64 << 10)
    if what == "loan":
        with pytest.raises(sealane.Timeout):
            while True:
                a.send(payload=bytes(10_000), timeout=0)
    number = a.request(b"?") if what == "reply" else None
    act = {
        "recv": a.recv,
        "recv_batch": a.recv_batch,
        "poll": lambda: a.poll(timeout=None),
        "loan": lambda: a.loan(10_000),
        "reply": lambda: a.wait_reply(number),
        "iterate": lambda: list(a),
    }[what]
    thread, outcome = blocked(act)
    until_busy((lambda: a.loan(10_000, timeout=0)) if what == "loan" else (lambda: a.recv(timeout=0)))
    a.close()
    thread.join()
    assert outcome == [[]] if what == "iterate" else isinstance(outcome[0], EOFError), outcome


def test_close_ends_the_calls_of_listeners_publishers_and_subscribers(tmp_path):
    listener = sealane.listen(tmp_path / "listener")
    thread, outcome = blocked(listener.accept)
    listener.close()
    thread.join()
    assert isinstance(outcome[0], EOFError) and not (tmp_path / "listener").exists()

    publisher = sealane.publish(tmp_path / "publisher")
    thread, outcome = blocked(publisher.wait_event)
    until_busy(lambda: publisher.wait_event(timeout=0))
    subscriber = None
    joined = threading.Thread(target=lambda: sealane.subscribe(tmp_path / "publisher"))
    joined.start()
    joined.join()
    thread.join()
    assert outcome[0].kind == "joined"
    thread, outcome = blocked(lambda: [publisher.wait_event() for _ in range(100)])
    until_busy(lambda: publisher.stats())
    publisher.close()
    thread.join()
    assert isinstance(outcome[0], EOFError), outcome
    assert subscriber is None


@pytest.mark.parametrize(
    "act",
    [
        "b.recv()",
        "b.poll(timeout=None)",
        "b.recv_batch()",
        "a.wait_reply(a.request(b'?'))",
        "a.call(b'?')",
        "fill(); a.loan(10_000)",
        "fill(); a.send(payload=bytes(10_000))",
        "fds(); a.send(fds=[0])",
        "sealane.listen('@sealane-test-' + str(os.getpid())).accept()",
        "sealane.publish().wait_event()",
        "sealane.from_socket((ends := socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))[0], handshake_timeout=1e6)",
        "sealane.subscribe_socket((ends := socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))[0], handshake_timeout=1e6)",
        "next(iter(b))",
        "subscriber().recv()",
        "subscriber().recv_latest()",
        "subscriber().call(b'?')",
        "(s := subscriber()).wait_reply(s.request(b'?'))",
    ],
)
def test_a_signal_interrupts_whatever_waits(script, act):
    out = script(
        f"""
        import os, signal, socket, threading, sealane
        a, b = sealane.pair(ring_capacity=64 << 10, max_fds=1)
        def fill():
            try:
                while True: a.send(payload=bytes(10_000), timeout=0)
            except sealane.Timeout: pass
        def fds():
            try:
                while True: a.send(fds=[0], timeout=0)
            except sealane.Timeout: pass
        def subscriber():
            global publisher
            publisher = sealane.publish("@sealane-signal-" + str(os.getpid()))
            thread = threading.Thread(target=lambda: publisher.wait_event(timeout=20))
            thread.start()
            found = sealane.subscribe("@sealane-signal-" + str(os.getpid()))
            thread.join()
            return found
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        kept = sealane.listen("@sealane-kept-" + str(os.getpid()))
        try:
            {act}
        except KeyboardInterrupt:
            print("interrupted")
        # What was interrupted works as before.
        b.send(b"x"); print(a.recv(timeout=5).control)
        """,
        stdin=open("/dev/null"),
    )
    assert out == "interrupted\nb'x'\n"


def test_a_handler_that_returns_does_not_end_the_wait(script):
    out = script(
        """
        import signal, sealane
        a, b = sealane.pair()
        signal.signal(signal.SIGALRM, lambda *_: a.send(b"from the handler"))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        print(b.recv().control)
        """
    )
    assert out == "b'from the handler'\n"


def test_the_interpreter_ends_while_threads_wait(script):
    for _ in range(5):
        script(
            """
            import threading, sealane
            channels = [sealane.pair() for _ in range(4)]
            begun = threading.Barrier(9)
            def run(act):
                begun.wait()
                while True:
                    try: act()
                    except Exception: pass
            publisher = sealane.publish()
            for a, b in channels:
                threading.Thread(target=run, args=(b.recv,), daemon=True).start()
                threading.Thread(target=run, args=(lambda a=a: (a.send(payload=bytes(50_000)), a.loan(10)),), daemon=True).start()
            begun.wait()
            """
        )


def test_the_interpreter_ends_slowly_while_threads_come_back_to_it(script):
    # CPython up to 3.13 ends a thread that asks for the lock of an interpreter that ends. Rust's frames do not survive that, so PyO3
    # stops the thread there.
    script(
        """
        import threading, time, sealane
        class Slow:
            def __del__(self, sleep=time.sleep): sleep(0.3)
        slow = Slow()
        channels = [sealane.pair() for _ in range(4)]
        for a, b in channels:
            threading.Thread(target=b.recv, daemon=True).start()
        """
    )


def test_threads_go_on_until_the_last_handler_of_atexit_has_run(script):
    out = script(
        """
        import atexit, threading
        received = threading.Event()
        # Handlers run in reverse order, so this one is the last.
        @atexit.register
        def last():
            a.send(b"x")
            received.wait()
            print("received")
        import sealane
        a, b = sealane.pair()
        def receive():
            b.recv()
            received.set()
        threading.Thread(target=receive, daemon=True).start()
        """
    )
    assert out == "received\n"


def test_the_interpreter_ends_with_open_objects(script):
    script(
        """
        import atexit, threading, sealane
        a, b = sealane.pair()
        loan = a.loan(10)
        view = loan.array
        b.send(payload=b"x"); message = a.recv(timeout=5)
        publisher = sealane.publish(); other = publisher.loan(10); kept = other.array
        @atexit.register
        def late():
            view[:] = 1
            b.send(b"late"); print(a.recv(timeout=5).control)
        local = threading.local(); local.all = (a, b, loan, view)
        import sys; sys.modules["kept"] = (a, b, loan, view, message, publisher)
        """
    )
