"""Thinking: image and instruction to a checked plan of waypoints. No rclpy here."""
