"""Machinery that methods share."""

import numpyro

# ArviZ, imported first, leaves a lazy stand-in for numpyro. A submodule imported through it is loaded twice, and the
# second `numpyro.distributions` lacks the attribute through which `numpyro.factor` works. Reading any attribute loads
# the stand-in whole; where somebody else's import came before, the attribute is put back.
numpyro.__path__  # noqa: B018
import numpyro.distributions.distribution as _distribution  # noqa: E402

numpyro.distributions.distribution = _distribution
