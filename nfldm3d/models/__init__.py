"""Networks with weights, a folder for each system."""
