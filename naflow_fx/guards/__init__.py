"""What makes sure that the program is the user's model, or says why it can't be."""
