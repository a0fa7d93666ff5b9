"""Export of teacher and drafter to ONNX and TensorRT. Installed as ``free.export``."""
