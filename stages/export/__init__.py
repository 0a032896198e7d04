"""Students leave the store: as ONNX models, as weights, as indexes of item vectors, as lists of recommendations."""
