"""What the codec is trained against, and how losses are balanced."""
