"""One file a runtime: the same verb over ONNX Runtime and TensorRT."""
