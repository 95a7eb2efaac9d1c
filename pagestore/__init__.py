"""pagestore: databases as cheap as files, on stock Postgres."""
