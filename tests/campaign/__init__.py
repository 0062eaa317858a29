"""Files, signals and disks that are out to harm: what ``make campaign`` runs, and of what the suite takes a slice."""
