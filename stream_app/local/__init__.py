"""The embedded stack: real Kafka, real Triton and the stand-in LLM, from Python packages alone (DESIGN section 9)."""
