"""What is decided for data: split, recipe, start weights, config."""
