"""The library. See README.md."""
