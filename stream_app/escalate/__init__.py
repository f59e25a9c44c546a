"""The slow path: unsure events are put to an LLM, within its limits and the budget."""
