"""Fine-tuning under fake quantization: an engine that runs ONNX graphs with torch, and what trains.

torch is an extra. Nothing here is imported before ``onnxq.training.availability`` has found it.
"""
