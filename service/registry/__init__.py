"""The model repository on disk and the models that are loaded from it."""
