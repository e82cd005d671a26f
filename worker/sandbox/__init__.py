"""Jobs behind walls: a zygote that has imported TensorFlow, and short-lived processes that it locks up."""
