"""Markov chain Monte Carlo: exact in the long run."""
