"""Record the running graph into a bag (MCAP) until Ctrl-C.

Beside every topic the bag holds what made the run: parameters of all nodes, versions, checkpoint hashes, git
state and robot model. `bridgevla bag info BAG` shows it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from bridgevla_ros.bags.recorder import RecorderConfig, fresh
from bridgevla_ros.core import config as core_config
from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bridgevla record``."""
    defaults = RecorderConfig()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    parser.add_argument("-o", "--output", default=f"runs/bag-{stamp}", help="folder of the bag (%(default)s)")
    parser.add_argument(
        "-x",
        "--exclude",
        action="append",
        default=[],
        help="topic to leave out, or a pattern such as '/camera/*'; may repeat",
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so long (0: at Ctrl-C)")
    parser.add_argument(
        "--compression", choices=("none", "lz4", "zstd"), default="none", help="of the file's chunks"
    )
    parser.add_argument("--split-size", type=int, default=0, metavar="MB", help="new file at this size")
    parser.add_argument("--split-duration", type=float, default=0.0, metavar="S", help="new file this often")
    parser.add_argument(
        "--min-free",
        type=float,
        default=defaults.min_free,
        metavar="GB",
        help="finish the bag when less disk space is free (%(default)s)",
    )
    parser.add_argument(
        "--measure",
        type=float,
        default=0.0,
        metavar="S",
        help="record nothing, but measure for so long whether 640x480 RGB-D at 30 Hz is kept on one core",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what --measure finds as JSON")
    parser.add_argument(
        "--recorder",
        choices=("auto", "rosbag2", "own"),
        default="auto",
        help="who records; auto: rosbag2 where it is installed",
    )


def config_of(args: argparse.Namespace) -> RecorderConfig:
    """The recorder's parameters.

    Raises:
        ConfigError: A value is out of range, or the folder is there already.
    """
    values = {
        "output": args.output,
        "exclude": (*RecorderConfig().exclude, *args.exclude),
        "compression": args.compression,
        "split_size": args.split_size,
        "split_duration": args.split_duration,
        "min_free": args.min_free,
        "recorder": args.recorder,
    }
    config: RecorderConfig = core_config.from_mapping(RecorderConfig, values, "bridgevla record")
    fresh(config.output)
    return config


def run(args: argparse.Namespace) -> int:
    """Record, showing how much there is.

    Returns:
        0 when something was recorded, 1 when not or when it ended early, 2 when it could not start.
    """
    if args.measure > 0.0:
        from bridgevla_ros.bags import measure

        return measure.report(args.measure, args.compression, args.json)
    try:
        config = config_of(args)
    except ConfigError as error:
        print(f"bridgevla record: {error}", file=sys.stderr)
        return 2
    from bridgevla_ros import bringup

    # The same discovery and transport as the graph.
    for name, value in bringup.build({}).environment:
        os.environ.setdefault(name, value)
    import rclpy
    from rclpy.clock import Clock, ClockType
    from rclpy.signals import SignalHandlerOptions

    from bridgevla_ros.bags import rosbag2
    from bridgevla_ros.bags.recorder import Recorder, summary
    from bridgevla_ros.nodes.recorder import serve
    from bridgevla_ros.ros.spin import StopFlag

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    flag = StopFlag().install()
    try:
        recorder = rosbag2.make(config)
    except (ConfigError, BridgeError) as error:
        print(f"bridgevla record: {error}", file=sys.stderr)
        rclpy.shutdown()
        return 2
    start = time.monotonic()

    def show() -> None:
        seconds = time.monotonic() - start
        lost = sum(recorder.lost.values())
        print(
            f"\r{seconds:6.1f} s  {recorder.topics:3d} topics  {recorder.messages:7d} messages  "
            f"{recorder.bytes / 1e6:8.1f} MB" + (f"  {lost} LOST" if lost else ""),
            end="",
            flush=True,
        )
        flag.set = flag.set or 0.0 < args.seconds <= seconds

    recorder.create_timer(0.5, show, clock=Clock(clock_type=ClockType.STEADY_TIME))
    print(f"recording into {recorder.path}; Ctrl-C ends it")
    status = serve(recorder, flag)
    rclpy.shutdown()
    print()
    if isinstance(recorder, Recorder):
        print(summary(recorder))
        return status or (0 if recorder.messages else 1)
    return status
