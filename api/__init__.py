"""The public HTTP API and its pages: parse, permit, query, return."""
