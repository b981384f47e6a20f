"""What each kind of shipped model is judged by: one module a kind, each returns a `Result`."""
