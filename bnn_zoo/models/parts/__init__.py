"""Pieces that models share: layers, hyper-parameters, likelihoods."""
