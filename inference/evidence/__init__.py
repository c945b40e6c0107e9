"""Log evidence without Z: populations that start in the two-stage prior and are weighted by L."""
