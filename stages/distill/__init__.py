"""Label shards -> student. Never imports a teacher: everything it knows of one comes from the store."""
