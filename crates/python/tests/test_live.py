"""examples/python/live.py, with the camera example if it was built (``SEALANE_TARGET``), and with a publisher that plays it."""

import os
import pathlib
import signal
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest

import sealane

LIVE = pathlib.Path(__file__).parents[3] / "examples/python/live.py"
pytest.importorskip("matplotlib", reason="SKIPPED: matplotlib is not installed")


def camera():
    """The program of the example, if it was built."""
    target = pathlib.Path(os.environ.get("SEALANE_TARGET", LIVE.parents[2] / "target"))
    return next((path for kind in ("release", "debug") if (path := target / kind / "examples/camera").exists()), None)


def live(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, str(LIVE), *map(str, arguments)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "MPLBACKEND": "Agg"}, **options,
    )


def is_a_plot(path):
    """Whether the picture has the colours of lines, and is not blank."""
    from matplotlib import image

    pixels = image.imread(path)[..., :3]
    assert pixels.shape == (700, 1100, 3)
    return len(np.unique((pixels * 15).astype("u1").reshape(-1, 3), axis=0)) > 50


class Player(threading.Thread):
    """Publishes frames as the example does, until it is stopped."""

    def __init__(self, path, control=None):
        super().__init__()
        self.publisher = sealane.publish(path, max_fds=1, ring_capacity=1 << 20)
        self.control, self.stopped, self.freed = control, threading.Event(), []

    def run(self):
        columns, rows = 8, 6
        zone = np.dtype([("sums", "<u4", 3), ("pixels", "<u4"), ("saturated", "<u4"), ("dark", "<u4"), ("focus", "<u8")])
        for number in range(1 << 30):
            if self.stopped.is_set():
                break
            event = self.publisher.wait_event(timeout=0.005)
            if event and event.kind == "message":
                self.freed.append(struct.unpack("<3Q", event.message.control)[0])
            settings = (2500.0 + number * 10, 1 + number / 100, 1.5, 2.0)
            control = struct.pack("<4I Q 4I 4d", 640, 480, 0, 1, number, 0, columns, rows, 0, *settings)
            with self.publisher.loan(3 * 256 * 4 + columns * rows * zone.itemsize) as loan:
                statistics = loan.array
                statistics[:3072].view("<u4")[:] = np.arange(768) % 256
                zones = statistics[3072:].view(zone)
                zones["pixels"] = 10
                zones["sums"] = np.arange(48 * 3).reshape(48, 3) * 15
                del statistics, zones
                loan.send(self.control or control)
        self.publisher.close()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


def test_the_camera_is_plotted(tmp_path):
    program = camera()
    if program is None:
        print("SKIPPED: the example camera was not built (cargo build --release --example camera)", file=sys.stderr)
        pytest.skip("the example camera was not built (cargo build --release --example camera)")
    path, png = tmp_path / "camera", tmp_path / "live.png"
    with live(path, "--save", png, "--frames", 20, "--patience", 60) as plot:
        command = [str(program), "--publish", str(path), "--frames", "100000", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as pipeline:
            out, err = plot.communicate(timeout=100)
            pipeline.terminate()
            pipeline.communicate()
    assert plot.returncode == 0, err
    assert "the newest of 20" in out and is_a_plot(png)


def test_frames_of_a_publisher_in_python_are_plotted(tmp_path):
    path, png = tmp_path / "camera", tmp_path / "live.png"
    with live(path, "--save", png, "--frames", 5, "--patience", 60) as plot, Player(path) as player:
        out, err = plot.communicate(timeout=100)
    assert plot.returncode == 0, err
    assert "the newest of 5" in out and is_a_plot(png)
    assert len(player.freed) >= 1 and player.freed == sorted(player.freed), "each frame's buffer is given back"
    assert sorted(os.listdir(tmp_path)) == ["live.png"]


def test_a_pipeline_that_is_not_there_is_told(tmp_path):
    with live(tmp_path / "nobody", "--patience", 0) as plot:
        _out, err = plot.communicate(timeout=100)
    assert plot.returncode == 1 and "camera --publish" in err and "Traceback" not in err


def test_frames_that_do_not_fit_are_errors(tmp_path):
    with live(tmp_path / "camera", "--save", tmp_path / "png", "--patience", 60) as plot:
        with Player(tmp_path / "camera", control=b"nonsense"):
            _out, err = plot.communicate(timeout=100)
    assert plot.returncode != 0 and "72 control bytes" in err


def test_an_interrupt_ends_it(tmp_path):
    with live(tmp_path / "camera", "--patience", 60) as plot, Player(tmp_path / "camera") as player:
        while not player.freed:
            assert plot.poll() is None
        plot.send_signal(signal.SIGINT)
        _out, err = plot.communicate(timeout=100)
    assert plot.returncode == 130 and "Traceback" not in err
