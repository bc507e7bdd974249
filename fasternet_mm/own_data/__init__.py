"""People's own data, in the layouts of the usual labelling tools, read into one form and checked."""
