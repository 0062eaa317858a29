"""A generator in the manner of GAUDI, to compare with: each scene is one global latent (Bautista et al. 2022)."""
