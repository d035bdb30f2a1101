class InputError(ValueError): pass
