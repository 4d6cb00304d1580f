"""Adapters: one module per provider, values in and values out."""
