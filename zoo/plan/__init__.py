"""What suits a user's folder: measured, warned of, and made into a recipe, each with its reason.

files     which images there are, and what their headers say
pixels    what is measured on some of their slices
pairs     how source and target of a pair go together
caution   what will go wrong
rules     from measurements to fields of a recipe
device    what this machine's memory and speed allow
planning  this all in order: `plan.json`, and its table
"""
