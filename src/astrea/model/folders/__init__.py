"""Model folders: read as data with limits, whoever made them."""
