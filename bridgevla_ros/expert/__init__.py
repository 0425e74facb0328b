"""Action expert: local cloud, proprioception and guidance in, a chunk of commands out."""
