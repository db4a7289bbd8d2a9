"""Approximations of a chosen form, fitted by optimisation."""
