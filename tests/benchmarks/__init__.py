"""Benchmarks: commands that print what they measured. No test asserts a time."""
