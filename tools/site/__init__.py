"""The documentation as a site (`make docs`): pages that are made, and the check of its links."""
