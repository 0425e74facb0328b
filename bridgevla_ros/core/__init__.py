"""Value types, geometry, kinematics and safety. Imports neither rclpy nor messages nor torch."""
