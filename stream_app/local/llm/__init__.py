"""The stand-in LLM: an OpenAI-compatible server with a fixed rule for a brain, and faults on demand."""
