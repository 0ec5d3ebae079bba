"""Files of a trained model for other programs, each proven to answer like its adapter."""
