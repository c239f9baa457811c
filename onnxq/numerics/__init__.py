"""Arrays in, arrays out: the mapping, the roundings, the metrics. No ONNX in here."""
