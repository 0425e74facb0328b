"""Data generation and training of the learned parts."""
