"""Methods compared on cases of known lineage: which of them find the copies, and which accuse the innocent."""
