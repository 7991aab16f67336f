"""Readers of every format, from every place."""
