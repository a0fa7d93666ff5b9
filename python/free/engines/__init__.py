"""How networks are executed: the same graphs on torch, ONNX Runtime or TensorRT."""
