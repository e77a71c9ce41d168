"""Scripts that exports carry: read as text, run elsewhere, the standard library only."""
