"""From a trained model to one ONNX file, proven to judge as the model does."""
