"""What runs inside robosuite's own environment: needs only numpy, mujoco and robosuite.

robosuite pins NumPy below 2, so it lives in a virtual environment of its own (``make setup-robosuite``) and
speaks through pipes with ``bridgevla_ros.evaluation.robosuite``.
"""
