"""What judges: a detector and the watches over its trustworthiness, for each camera."""
