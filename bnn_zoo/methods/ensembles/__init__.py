"""Optimised networks: one, or many."""
