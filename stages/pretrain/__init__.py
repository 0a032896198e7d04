"""Source domains -> frozen teacher, and its adaptation to each target domain."""
