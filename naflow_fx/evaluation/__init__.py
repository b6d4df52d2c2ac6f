"""Is the explanation any good: data with known evidence, metrics, peers."""
