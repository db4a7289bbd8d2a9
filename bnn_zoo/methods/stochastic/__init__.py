"""Markov chains that see a batch of the rows a step."""
