"""Shunt: small models decide what they are sure of, an LLM the rest; one decision per Kafka event."""

__version__ = "0.1.0"
