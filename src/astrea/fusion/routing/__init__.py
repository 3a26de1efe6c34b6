"""Routing: from scores of experts to which of them a question reads, and how strongly. One policy per file."""
