"""Networks with weights: the scene auto-encoder, the latent auto-encoder, and the denoisers."""
