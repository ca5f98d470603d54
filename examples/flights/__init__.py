"""A year of flights from New York, one durable run per day, by a worker that is killed again and again."""
