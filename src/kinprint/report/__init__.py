"""Records to text that a person reads. Nothing is computed here."""
