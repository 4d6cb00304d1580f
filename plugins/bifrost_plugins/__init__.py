"""The plugins that ship with bifrost_core; import each from its own module."""
