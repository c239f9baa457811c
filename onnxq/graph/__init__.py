"""The only place that knows the idioms of the intermediate representation (onnx-ir)."""
