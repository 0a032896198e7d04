"""Any scorer -> ranks of the held-out targets, metrics, significance."""
