"""What routing costs beside plain HTTP clients, the vendors' SDKs and LiteLLM; ``__main__`` has the measurement."""
