"""MuJoCo stand-in for camera and arm: scenes, sensors, tasks and their judge. No rclpy."""
