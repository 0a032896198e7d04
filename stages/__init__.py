"""What the pipeline does, in the order it does it. A stage talks to the next one through the store only."""
