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


def live(*arguments, **environment):
    without_a_display = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return subprocess.Popen(
        [sys.executable, str(LIVE), *map(str, arguments)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**without_a_display, "MPLBACKEND": "Agg", **environment},
    )


@pytest.fixture
def windows(tmp_path_factory):
    """A backend of matplotlib that seems to have windows, as the environment of ``live``."""
    folder = tmp_path_factory.mktemp("backend")
    (folder / "windows.py").write_text("from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas")
    return {"MPLBACKEND": "module://windows", "PYTHONPATH": str(folder)}


def is_a_plot(path):
    """Whether the picture has the colours of lines, and is not blank."""
    from matplotlib import image

    pixels = image.imread(path)[..., :3]
    assert pixels.shape == (700, 1100, 3)
    return len(np.unique((pixels * 15).astype("u1").reshape(-1, 3), axis=0)) > 50


class Player(threading.Thread):
    """Publishes frames as the example does, until it is stopped. With a notice it is a bridge, which says that after ``frames`` frames
    have been given back, and goes on saying it."""

    def __init__(self, path, control=None, notice=None, frames=0):
        super().__init__()
        self.publisher = sealane.publish(path, max_fds=1, ring_capacity=1 << 20)
        self.control, self.notice, self.frames = control, notice, frames
        self.stopped, self.freed = threading.Event(), []

    def run(self):
        columns, rows = 8, 6
        zone = np.dtype([("sums", "<u4", 3), ("pixels", "<u4"), ("saturated", "<u4"), ("dark", "<u4"), ("focus", "<u8")])
        for number in range(1 << 30):
            if self.stopped.is_set():
                break
            event = self.publisher.wait_event(timeout=0.005)
            if event and event.kind == "message":
                self.freed.append(struct.unpack("<3Q", event.message.control)[0])
            if self.notice and len(self.freed) >= self.frames:
                self.publisher.send(self.notice)
                continue
            if self.notice:
                self.publisher.send(b"sealane-bridge: missed")
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


def test_a_pipeline_behind_a_bridge_is_plotted_and_its_end_is_seen(tmp_path):
    path, png = tmp_path / "remote", tmp_path / "live.png"
    with live(path, "--save", png, "--frames", 1 << 30, "--patience", 60) as plot:
        with Player(path, notice=b"sealane-bridge: gone: ended", frames=3):
            out, err = plot.communicate(timeout=100)
    assert plot.returncode == 0, err
    assert "the newest of" in out and is_a_plot(png)


def test_what_a_bridge_says_of_a_pipeline_that_is_not_there_is_told(tmp_path):
    with live(tmp_path / "remote", "--save", tmp_path / "png", "--patience", 2) as plot:
        with Player(tmp_path / "remote", notice=b"sealane-bridge: gone: unreachable"):
            out, err = plot.communicate(timeout=100)
    assert (plot.returncode, out) == (1, "")
    assert err == "live.py: no frame within 2 s, and the bridge says: gone: unreachable\n"


def test_a_pipeline_that_is_not_there_is_told(tmp_path, windows):
    with live(tmp_path / "nobody", "--patience", 0, **windows) as plot:
        _out, err = plot.communicate(timeout=100)
    assert plot.returncode == 1 and "camera --publish" in err and "Traceback" not in err


def test_frames_that_do_not_fit_are_errors(tmp_path):
    with live(tmp_path / "camera", "--save", tmp_path / "png", "--patience", 60) as plot:
        with Player(tmp_path / "camera", control=b"nonsense"):
            _out, err = plot.communicate(timeout=100)
    assert plot.returncode != 0 and "72 control bytes" in err


@pytest.mark.parametrize("backend", ["Agg", "svg", "TkAgg"])
def test_without_a_display_it_names_save(tmp_path, backend):
    with live(tmp_path / "camera", "--patience", 60, MPLBACKEND=backend) as plot:
        out, err = plot.communicate(timeout=100)
    assert (plot.returncode, out, err) == (1, "", "live.py: there is no display: --save FILE.png draws to a file\n")


def test_a_file_that_cannot_be_written_is_told_before_any_frame(tmp_path):
    with live(tmp_path / "camera", "--save", tmp_path / "missing" / "live.png", "--patience", 60) as plot:
        out, err = plot.communicate(timeout=100)
    assert plot.returncode == 1 and err == f"live.py: --save {tmp_path}/missing/live.png: No such file or directory\n"
    (tmp_path / "folder").mkdir()
    with live(tmp_path / "camera", "--save", tmp_path / "folder", "--patience", 60) as plot:
        out, err = plot.communicate(timeout=100)
    assert plot.returncode == 1 and err == f"live.py: --save {tmp_path}/folder: Is a directory\n"
    assert sorted(os.listdir(tmp_path)) == ["folder"]


def test_an_interrupt_leaves_no_draft(tmp_path):
    with live(tmp_path / "camera", "--save", tmp_path / "png", "--frames", 1 << 30, "--patience", 60) as plot:
        with Player(tmp_path / "camera") as player:
            while not player.freed:
                assert plot.poll() is None
            plot.send_signal(signal.SIGINT)
            plot.communicate(timeout=100)
    assert plot.returncode == 130 and os.listdir(tmp_path) == []


def test_an_interrupt_ends_it(tmp_path, windows):
    with live(tmp_path / "camera", "--patience", 60, **windows) as plot, Player(tmp_path / "camera") as player:
        while not player.freed:
            assert plot.poll() is None
        plot.send_signal(signal.SIGINT)
        _out, err = plot.communicate(timeout=100)
    assert plot.returncode == 130 and "Traceback" not in err
