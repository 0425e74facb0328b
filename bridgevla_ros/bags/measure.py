"""Does the recorder keep up? A camera of 640x480 at 30 Hz, recorded on one core, every frame counted.

``bridgevla record --measure 20`` runs it. The camera publishes colour (rgb8) and depth (32FC1), 64 MB/s, in a
process of its own; the recorder is held to one core by the scheduler. A frame is lost when it was published
while the recorder was subscribed and is not in the bag.
"""

from __future__ import annotations

import array
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from bridgevla_ros.core.errors import BridgeError, ErrorCode

WIDTH, HEIGHT, RATE = 640, 480, 30.0
COLOR, DEPTH = "/measure/color/image_raw", "/measure/depth/image_raw"
BEGIN = "begin"
"""What the camera says before its first frame."""
PATIENCE = 120.0
"""Seconds for both processes to find each other, on a busy machine."""


@dataclass(frozen=True)
class Measured:
    """What came out.

    Attributes:
        published, recorded: Frames of both topics together.
        reported: Messages that the recorder itself says were lost.
        seconds: That the camera ran.
        megabytes_per_second: Into the bag.
        core_share: Processor time of the recorder a second, 1 for the whole core.
        load: Load average of the machine at the end, last minute.
        late: Frames that the camera itself could not publish in time (more than half a period late).
    """

    published: int
    recorded: int
    reported: int
    seconds: float
    megabytes_per_second: float
    core_share: float
    load: float
    late: int

    @property
    def lost(self) -> int:
        """Frames that are not in the bag."""
        return self.published - self.recorded


def measure(seconds: float, compression: str = "none", core: int | None = None) -> Measured:
    """Run camera and recorder on a ROS domain of their own; see ``Measured``.

    Args:
        seconds: How long to publish.
        compression: Of the bag's chunks.
        core: Where the recorder runs; by default the last one that this process may use.
    """
    from bridgevla_ros import bringup
    from bridgevla_ros.bags.reader import Bag
    from bridgevla_ros.ros.domain import free_domain

    chosen = max(os.sched_getaffinity(0)) if core is None else core
    environment = {**os.environ, **dict(bringup.build({}).environment), "ROS_DOMAIN_ID": str(free_domain())}
    with tempfile.TemporaryDirectory(prefix="bridgevla-measure-") as folder:
        bag = Path(folder) / "bag"
        parameters = {"output": f'"{bag}"', "recorder": "own", "compression": compression, "min_free": "0.2"}
        words = [w for name, value in parameters.items() for w in ("-p", f"{name}:={value}")]
        recorder = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "bridgevla_ros.nodes.recorder",
                "--ros-args",
                "--log-level",
                "warn",
                *words,
            ],
            env=environment,
            start_new_session=True,
        )
        try:
            os.sched_setaffinity(recorder.pid, {chosen})
            said, used = _film(seconds, environment, psutil.Process(recorder.pid))
            recorder.send_signal(signal.SIGINT)
            recorder.wait(PATIENCE)
        finally:
            if recorder.poll() is None:
                recorder.kill()
                recorder.wait()
        found = Bag(bag)
        counts = {topic: count for topic, (_, count) in found.topics().items()}
        run = found.run
        return Measured(
            published=int(said["published"]),
            recorded=counts.get(COLOR, 0) + counts.get(DEPTH, 0),
            reported=sum(run.lost.values()) if run is not None else 0,
            seconds=round(said["seconds"], 2),
            megabytes_per_second=round(sum(f.stat().st_size for f in found.files) / 1e6 / said["seconds"], 1),
            core_share=round(used / said["seconds"], 3),
            load=round(os.getloadavg()[0], 1),
            late=int(said["late"]),
        )


def _film(
    seconds: float, environment: dict[str, str], recorder: psutil.Process
) -> tuple[dict[str, float], float]:
    """Run the camera; what it says at its end, and the recorder's processor seconds meanwhile.

    Raises:
        BridgeError: TIMEOUT where camera and recorder do not find each other.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "bridgevla_ros.bags.measure", str(seconds)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != BEGIN:
            raise BridgeError(
                ErrorCode.TIMEOUT,
                f"the recorder did not subscribe within {PATIENCE:.0f} s",
                remedy="look for what keeps this machine busy",
            )
        before = recorder.cpu_times()
        said = json.loads(process.stdout.readline())
        after = recorder.cpu_times()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return said, after.user + after.system - before.user - before.system


def camera(seconds: float) -> int:
    """Publish frames, and print as JSON how many; the process that ``measure`` starts."""
    import rclpy
    from sensor_msgs.msg import Image

    from bridgevla_ros.ros import conversions, qos

    rclpy.init()
    node = rclpy.create_node("measure_camera")
    publishers = [node.create_publisher(Image, topic, qos.SENSOR) for topic in (COLOR, DEPTH)]
    noise = np.random.default_rng(0)
    slope = np.linspace(0, 200, WIDTH * HEIGHT * 3).reshape(HEIGHT, WIDTH, 3)
    picture = (slope + noise.integers(0, 8, slope.shape)).astype(np.uint8)
    depth = (0.8 + slope[..., 0] / 400 + noise.normal(0, 0.002, slope.shape[:2])).astype(np.float32)
    messages = [
        Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=WIDTH * size, data=array.array("B", data))
        for encoding, size, data in (("rgb8", 3, picture.tobytes()), ("32FC1", 4, depth.tobytes()))
    ]
    end = time.monotonic() + PATIENCE
    while not all(p.get_subscription_count() for p in publishers):
        if time.monotonic() > end:
            return 1
        time.sleep(0.1)
    time.sleep(1.0)
    print(BEGIN, flush=True)
    published = late = 0
    began = time.monotonic()
    while (now := time.monotonic()) - began < seconds:
        stamp = conversions.stamp_to_msg(time.time())
        for publisher, message in zip(publishers, messages, strict=True):
            message.header.stamp = stamp
            publisher.publish(message)
            published += 1
        due = began + published / 2 / RATE
        late += now > due - 0.5 / RATE
        time.sleep(max(due - time.monotonic(), 0.0))
    elapsed = time.monotonic() - began
    time.sleep(1.5)  # what is on its way arrives
    print(json.dumps({"published": published, "seconds": elapsed, "late": late}), flush=True)
    return 0


def report(seconds: float, compression: str, path: Path | None = None) -> int:
    """Measure, print, perhaps write JSON; 0 when no frame was lost, 1 when some were."""
    found = measure(seconds, compression)
    percent = 100 * found.core_share
    rate = found.recorded / 2 / found.seconds
    print(
        f"{found.recorded} of {found.published} frames in the bag ({WIDTH}x{HEIGHT} colour and depth at "
        f"{rate:.1f} Hz, {found.megabytes_per_second:.0f} MB/s, compression {compression}); "
        f"{found.lost} lost, "
        f"{found.reported} reported as lost; {percent:.0f}% of one core; load {found.load:.1f}"
    )
    if found.late:
        print(f"the camera itself was late {found.late} times: this machine is busy with other things")
    if path is not None:
        path.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    return 0 if found.lost == 0 else 1


if __name__ == "__main__":
    sys.exit(camera(float(sys.argv[1])))
