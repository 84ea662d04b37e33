"""The mark of a folder that is meant to have no manifest. Who only writes it imports no more than this."""

# The name of a file. Whoever fills the folder has finished, so that it is empty is no mistake.
EMPTY = ".empty"
