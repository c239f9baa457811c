"""What makes a quantized model more accurate: each technique in a file of its own."""
