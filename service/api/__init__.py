"""HTTP: the only place that knows of FastAPI and of status codes."""
