"""How long work is driven, shown, interrupted, resumed and kept."""
