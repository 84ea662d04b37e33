"""Other people's notations of the same model, both ways."""
