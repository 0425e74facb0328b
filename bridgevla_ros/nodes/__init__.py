"""One thin file per node: convert in, call the core, convert out."""
