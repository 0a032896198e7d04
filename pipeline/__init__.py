"""What the user talks to: the command line and the configuration."""
