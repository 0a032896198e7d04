"""A sweep: the students of many settings and seeds, trained by several processes."""
