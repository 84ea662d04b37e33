"""Keep it so: what changes in files and sandboxes → sandboxes to look at again."""
