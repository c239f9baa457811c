"""Results as plain values, and as text for people."""
