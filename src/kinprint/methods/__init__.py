"""One file a method: its mathematics, its source, what it ignores and what it notices."""
