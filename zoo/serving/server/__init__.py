"""A server with TF Serving's REST and gRPC interfaces, for one model."""
