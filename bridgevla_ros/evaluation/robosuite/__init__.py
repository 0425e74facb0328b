"""robosuite's Lift, Stack, PickPlaceCan, NutAssemblySquare and Door, judged by their own success checks.

robosuite runs in a process and an environment of its own (``make setup-robosuite``): nothing here imports it.
"""
