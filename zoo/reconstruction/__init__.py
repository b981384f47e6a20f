"""Images from measurements, by operators of `zoo.physics` and priors."""
