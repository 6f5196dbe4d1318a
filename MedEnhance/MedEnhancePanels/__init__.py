"""The code of the module MedEnhance: pages on top, the tasks that they start, MRML nodes below."""
