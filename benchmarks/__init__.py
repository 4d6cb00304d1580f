"""Runnable measurements; each module says what it measures, in which unit, against what."""
