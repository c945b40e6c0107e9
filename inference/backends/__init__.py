"""One backend a file; each is a configuration that knows how to draw."""
