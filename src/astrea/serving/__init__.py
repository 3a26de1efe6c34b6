"""A server of one model: chat completions over HTTP, many conversations decoded together."""
