"""What is made of several explanations."""
