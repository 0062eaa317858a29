"""The networks of NeuralField-LDM: scene auto-encoder, latent auto-encoder, denoisers, and those that judge."""
