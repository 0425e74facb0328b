"""Data sets of episodes: LeRobotDataset v3 and MCAP, and the way from bags to them and back.

An episode is a set of columns, one row a frame, at a fixed rate. ``Feature`` says what a column holds.
``LeRobotWriter`` and ``McapWriter`` take the same episodes, ``open_dataset`` reads either. Nothing here
imports rclpy.
"""
