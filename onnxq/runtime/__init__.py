"""onnxruntime: sessions, running, and what its optimiser made of a model."""
