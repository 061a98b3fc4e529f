"""model -> Graph."""
