"""Kafka, exactly once: owned partitions, their transactional producers, and what is committed with them."""
