"""Float against quantized: accuracy, layers, speed, size, and what the runtime makes of both."""
