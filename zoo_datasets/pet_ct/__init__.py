"""`pet_ct`: positron emission tomography and CT of the same patient."""
