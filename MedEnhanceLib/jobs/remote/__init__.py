"""A worker on another machine: jobs whose volumes travel over TLS, or through an SSH tunnel."""
