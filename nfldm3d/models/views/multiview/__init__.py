"""ViewDiff (Hollein et al. 2024): what makes a text-to-image U-Net draw many views of one thing at once."""
