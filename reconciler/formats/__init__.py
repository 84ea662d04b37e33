"""Other people's notations of the same model, both ways where somebody writes them."""
