"""What rows are compared with: one kind a file, beside the recipe that labels share."""
