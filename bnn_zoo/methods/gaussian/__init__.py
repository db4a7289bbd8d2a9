"""One Gaussian about a mode."""
