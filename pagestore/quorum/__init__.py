"""Several safekeepers as one WAL service: elections, majorities, and who comes back late."""
