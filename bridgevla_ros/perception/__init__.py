"""Cropping and depth quality. Imports neither rclpy nor messages."""
