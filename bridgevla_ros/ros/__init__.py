"""What every node shares of ROS: parameters, QoS, conversions, transforms, spinning, diagnostics."""
