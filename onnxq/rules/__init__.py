"""What each operator means for quantization, as data."""
