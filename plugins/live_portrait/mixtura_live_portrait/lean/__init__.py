"""W, G and F with less arithmetic: the same functions, computed by fewer multiplications, channels last, for processors."""
