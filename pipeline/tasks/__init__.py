"""What the commands do, with the heavy imports that the commands' own modules must not have."""
