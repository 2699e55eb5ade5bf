"""What judges the parts of each camera: a detector, and the watches over its trustworthiness."""
