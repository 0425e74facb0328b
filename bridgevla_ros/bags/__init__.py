"""Recordings of the graph: MCAP bags that rosbag2 and Foxglove read as well."""
