"""What is kept between stages: artifacts, corpora, labels, runs, and the SQL over them. Knows nothing of torch."""
