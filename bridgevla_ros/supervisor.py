"""Start the graph as supervised processes, where `launch` is not installed: ``bridgevla up``.

Every process is the leader of its own session, so that a Ctrl-C reaches the supervisor alone, which then
ends its children in order: SIGINT, SIGTERM, SIGKILL, each to the whole process group. A process that ends by
itself is started again, after a delay that doubles while it keeps ending. If the supervisor itself is killed,
the kernel kills its children: nothing is left behind.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType, TracebackType

from bridgevla_ros import bringup
from bridgevla_ros.bringup import Graph, NodeSpec
from bridgevla_ros.ros.shared_memory import remove_stale_segments

Sink = Callable[[str, str], None]

STEADY = 20.0
"""Seconds after which a process counts as running well, and its next restart is quick again."""
LONGEST_DELAY = 30.0
"""Seconds, upper end of the doubling restart delay."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def command(graph: Graph, node: NodeSpec) -> list[str]:
    """Return the command line of a node: its module under this interpreter."""
    return [
        sys.executable,
        "-m",
        f"bridgevla_ros.nodes.{node.executable}",
        *bringup.ros_arguments(graph, node),
    ]


def print_line(name: str, line: str) -> None:
    """Write one line of a process to standard output, with its name in front."""
    if sys.stdout.isatty():
        colour = 31 + sum(name.encode()) % 6
        line = f"\033[{colour}m[{name}]\033[0m {line}"
    else:
        line = f"[{name}] {line}"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass
class Child:
    """One supervised process.

    Attributes:
        node: What it is.
        words: Its command line.
        process: The running (or last) process, None before the first start.
        starts: How often it was started.
        delay: Seconds before the next restart.
        due: Monotonic time of the next restart, None when none is planned.
        returncode: Of the last process that ended.
    """

    node: NodeSpec
    words: list[str]
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    began: float = 0.0
    delay: float = 0.0
    due: float | None = None
    returncode: int | None = None
    rest: bytes = b""

    @property
    def running(self) -> bool:
        """The process is there."""
        return self.process is not None and self.returncode is None


@dataclass
class Supervisor:
    """Starts the processes of a graph, keeps them running and ends them.

    Use ``run`` as the main loop of a program, or as a context manager for a loop in a thread.

    Attributes:
        graph: What to start.
        sink: Gets (process name, line) for each line of output and each event.
        commands: Command line by node name, in place of the nodes' modules.
        interrupt_wait: Seconds after SIGINT before SIGTERM.
        terminate_wait: Seconds after SIGTERM before SIGKILL.
    """

    graph: Graph
    sink: Sink = print_line
    commands: dict[str, Sequence[str]] = field(default_factory=dict)
    interrupt_wait: float = 5.0
    terminate_wait: float = 3.0

    def __post_init__(self) -> None:
        self.children = {
            n.name: Child(n, list(self.commands.get(n.name) or command(self.graph, n)), delay=n.respawn_delay)
            for n in self.graph.nodes
        }
        self.failed = ""
        """Name of the critical process whose end took the graph down."""
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        self._hurry = False
        self._thread: threading.Thread | None = None

    # For users ---------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start everything, serve until SIGINT, SIGTERM or the end of a critical process; returns 0 or 1."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            self._hurry = self._stop.is_set()
            self._stop.set()

        old = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            self._serve()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        return 1 if self.failed else 0

    def __enter__(self) -> Supervisor:
        self._thread = threading.Thread(target=self._serve, name="supervisor", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process and wait until they are gone."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def starts(self, name: str) -> int:
        """Return how often a process was started."""
        return self.children[name].starts

    def pid(self, name: str) -> int | None:
        """Return the process id of a process, None while it is not running."""
        child = self.children[name]
        return child.process.pid if child.running and child.process is not None else None

    # The loop ----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            for child in self.children.values():
                self._start(child)
            while not self._stop.is_set():
                self._pump(0.1)
                self._reap()
                self._restart_due()
        finally:
            self._end_all()

    def _start(self, child: Child) -> None:
        remove_stale_segments()
        child.due = None
        child.starts += 1
        child.began = time.monotonic()
        child.returncode = None
        try:
            child.process = subprocess.Popen(
                child.words,
                env={**os.environ, **dict(self.graph.environment)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            self.sink(child.node.name, f"cannot be started: {error}")
            child.process, child.returncode = None, 127
            self._after_end(child)
            return
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _pump(self, timeout: float) -> None:
        """Pass on what the processes say."""
        if not self._selector.get_map():
            time.sleep(timeout)
            return
        for key, _ in self._selector.select(timeout):
            self._read(key.data, key.fileobj)

    def _read(self, child: Child, stream: object) -> None:
        data = os.read(stream.fileno(), 1 << 16)  # type: ignore[attr-defined]
        lines = (child.rest + data).split(b"\n")
        child.rest = lines.pop()
        if not data:
            self._selector.unregister(stream)  # type: ignore[arg-type]
            if child.rest:
                lines, child.rest = [child.rest], b""
        for line in lines:
            self.sink(child.node.name, line.decode(errors="replace").rstrip())

    def _reap(self) -> None:
        for child in self.children.values():
            if child.running and child.process is not None and child.process.poll() is not None:
                child.returncode = child.process.returncode
                _signal_group(child, signal.SIGKILL)  # whatever it had started itself
                self._drain(child)
                self.sink(child.node.name, f"ended {describe(child.returncode)}")
                self._after_end(child)

    def _drain(self, child: Child) -> None:
        """Pass on the last words of a process that is gone."""
        assert child.process is not None
        stream = child.process.stdout
        assert stream is not None
        try:
            while stream in [k.fileobj for k in self._selector.get_map().values()]:
                self._read(child, stream)
        except BlockingIOError:
            self._selector.unregister(stream)
        stream.close()

    def _after_end(self, child: Child) -> None:
        if self._stop.is_set():
            return
        if child.node.critical:
            self.failed = child.node.name
            self.sink(child.node.name, "nothing works without it: everything is stopped")
            self._stop.set()
        elif child.node.respawn:
            now = time.monotonic()
            if now - child.began > STEADY:
                child.delay = child.node.respawn_delay
            child.due = now + child.delay
            self.sink(child.node.name, f"is started again in {child.delay:.1f} s")
            child.delay = min(2.0 * child.delay, LONGEST_DELAY)

    def _restart_due(self) -> None:
        now = time.monotonic()
        for child in self.children.values():
            if child.due is not None and now >= child.due:
                self._start(child)

    def _end_all(self) -> None:
        """SIGINT, SIGTERM, SIGKILL, until nothing is left."""
        for number, wait in (
            (signal.SIGINT, self.interrupt_wait),
            (signal.SIGTERM, self.terminate_wait),
            (signal.SIGKILL, 10.0),
        ):
            left = [c for c in self.children.values() if c.running]
            if not left:
                break
            if number != signal.SIGINT:
                for child in left:
                    self.sink(child.node.name, f"does not end: {number.name}")
            for child in left:
                _signal_group(child, number)
            until = time.monotonic() + wait
            while any(c.running for c in left) and time.monotonic() < until:
                if self._hurry and number != signal.SIGKILL:
                    break
                self._pump(0.05)
                self._reap()
        self._selector.close()


def describe(returncode: int) -> str:
    """Say how a process ended, in words."""
    if returncode == 0:
        return "by itself"
    if returncode > 0:
        return f"with exit status {returncode}"
    try:
        return f"by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"by signal {-returncode}"


def _signal_group(child: Child, number: signal.Signals) -> None:
    assert child.process is not None
    try:
        os.killpg(child.process.pid, number)
    except ProcessLookupError:
        return


def die_with_parent() -> None:
    """Runs in a child before its program: it hears Ctrl-C, and dies when its parent is gone.

    A shell starts background jobs with SIGINT ignored, and a child would inherit that.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
