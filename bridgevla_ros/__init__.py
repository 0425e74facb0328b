"""Plain-language control of a robot arm: a vision-language planner and a diffusion action expert."""
