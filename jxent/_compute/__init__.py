"""What is done for a compiler, behind functions that say what they compute."""
