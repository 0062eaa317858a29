"""Networks that draw views of objects: 3DiM's X-UNet with its baselines, and ViewDiff's additions to any U-Net."""
