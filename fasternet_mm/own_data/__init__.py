"""People's own data, in the layouts of the usual labeling tools, read into one form and checked."""
